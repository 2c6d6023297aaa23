"""What a report tells of each latent: where it fires, on what, and which latents are near it."""
