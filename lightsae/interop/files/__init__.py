"""Reading files of strangers: bounded, checked, and without running anything in them."""
