"""Images by number, prepared for a model, in batches."""
