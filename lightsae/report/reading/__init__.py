"""What a report reads: run folders, their evaluations, and how they compare."""
