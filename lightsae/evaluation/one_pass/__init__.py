"""What one pass over the rows of a split measures, and under which names."""
