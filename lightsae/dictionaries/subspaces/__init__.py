"""What directions span: its rank, and how far two spans are the same."""
