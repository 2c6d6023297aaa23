"""Data sources that make a folder of shards by themselves, such as the digits of the quickstart."""

from lightsae.activations.sources.digits import DigitsSource

__all__ = ["DigitsSource"]
