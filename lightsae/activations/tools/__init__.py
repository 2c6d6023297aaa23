"""What one does with folders of shards: look at them, check, rewrite, and make them of others."""
