"""How well inputs are reconstructed, and what a reconstruction costs downstream."""
