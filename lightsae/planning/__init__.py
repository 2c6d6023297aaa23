"""What to know before a job is sent: how the loss scales, and what it costs."""
