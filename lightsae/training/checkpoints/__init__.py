"""What a checkpoint of a module holds, and what it must agree with."""
