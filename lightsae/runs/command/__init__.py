"""What `RunCLI` is made of: options, the trainer, what is told on the way, the evaluation."""
