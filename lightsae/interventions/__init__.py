"""Acting on a model through its autoencoders: hooks, edits, finding latents, steering."""
