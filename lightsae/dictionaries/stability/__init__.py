"""Which latents of a dictionary come again when it is trained from another seed."""
