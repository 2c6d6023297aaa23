"""`lightsae scaling`: what trained autoencoders ended with, and the laws fitted to it."""
