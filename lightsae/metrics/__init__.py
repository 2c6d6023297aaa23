"""How good a trained autoencoder is, one torchmetrics metric per file."""
