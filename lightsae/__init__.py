"""Top-k sparse autoencoders on vision foundation models."""
