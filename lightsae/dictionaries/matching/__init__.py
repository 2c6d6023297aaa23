"""Which latents of two dictionaries are the same: by direction, by when they fire."""
