"""Models by name from the libraries that have them, each described in the same words."""
