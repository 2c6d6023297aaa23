"""From tokens to images: one activation per image, and the strongest images of each latent."""
