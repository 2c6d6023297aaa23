"""Do latents say the same thing: by their decoder rows, by their images."""
