"""What is read beside the rows of a set: embeddings of their samples, and rows of another layer."""
