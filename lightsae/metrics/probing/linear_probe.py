"""A linear classifier on sparse codes."""
