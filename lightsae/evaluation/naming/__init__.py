"""Whether names of latents hold: they fire on what they are called, and cause it to be said."""
