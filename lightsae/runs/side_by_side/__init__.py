"""Several runs at once: beside a baseline, seeds of one setting, their latents in one run."""
