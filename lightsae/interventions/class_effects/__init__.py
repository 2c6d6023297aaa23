"""What a latent does to a classifier: class logits under its ablation and amplification."""
