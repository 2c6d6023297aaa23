"""Two autoencoders' scores, latent by latent, rank by rank and seed by seed."""
