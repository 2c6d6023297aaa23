"""Reading activations for training: splits, shuffled batches and Lightning data modules."""
