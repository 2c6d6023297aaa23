"""What a linear classifier reads from few latents."""
