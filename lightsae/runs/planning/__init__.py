"""`lightsae plan`: a configuration of fit, read as fit reads it, and what it would need."""
