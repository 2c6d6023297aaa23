"""What `SAEModule` is made of: one class above the other, and what they hand work to."""
