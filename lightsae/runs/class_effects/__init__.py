"""`lightsae effects`: what the latents of a run do to the classifier that its shards came from."""
