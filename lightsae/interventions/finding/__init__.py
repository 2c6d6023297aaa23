"""Finding latents: contrast, probes, attribution, effects of ablation."""
