"""Sources that make a folder of shards from nothing but a name."""

from lightsae.activations.sources.digits import DigitsSource

__all__ = ["DigitsSource"]
