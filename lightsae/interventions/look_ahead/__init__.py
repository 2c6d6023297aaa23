"""Look-ahead bias: dated questions, the leak rate, and steering against it."""
