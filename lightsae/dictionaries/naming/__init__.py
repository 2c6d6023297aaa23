"""What latents are called: vocabularies of directions, names by cosine, names by labels."""
