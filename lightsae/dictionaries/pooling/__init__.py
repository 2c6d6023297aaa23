"""Unique latents of several dictionaries as one dictionary."""
