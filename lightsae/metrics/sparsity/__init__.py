"""How many latents fire, how often and how strongly."""
