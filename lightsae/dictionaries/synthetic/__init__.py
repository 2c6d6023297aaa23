"""Activations made of known features, and which of them a dictionary has found."""
