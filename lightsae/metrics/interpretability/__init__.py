"""Does a latent stand for one thing: by embeddings, by classes, by its place in the image."""
