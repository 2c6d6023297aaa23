"""Autoencoders as other libraries take them."""
