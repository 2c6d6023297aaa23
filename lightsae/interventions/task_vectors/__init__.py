"""Task vectors: their energy on a span of latents, their layers, and what injecting them does."""
