"""The public import path of `lightsae.activations.extraction.image_sources`."""

from lightsae.activations.extraction.image_sources import ArrayFile, HuggingFace, Tars

__all__ = ["ArrayFile", "HuggingFace", "Tars"]
