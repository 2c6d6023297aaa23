"""`lightsae vocabulary` and `lightsae name`: words with directions, and what latents are called."""
