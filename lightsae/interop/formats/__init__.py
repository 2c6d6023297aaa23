"""One file per format; see `lightsae.interop.registry`."""
