"""Stability of latents over seeds, on the embeddings of three networks of CIFAR-10."""
