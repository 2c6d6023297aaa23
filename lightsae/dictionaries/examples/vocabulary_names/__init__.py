"""Latents of a small language model held near its tokens, and called by them (arXiv 2606.27941)."""
