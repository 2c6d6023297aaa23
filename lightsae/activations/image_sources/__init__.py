"""Images by number from Hugging Face datasets, WebDataset tars and arrays, as torch datasets."""

from lightsae.activations.image_sources.arrays import ArrayFile
from lightsae.activations.image_sources.huggingface import HuggingFace
from lightsae.activations.image_sources.tars import Tars

__all__ = ["ArrayFile", "HuggingFace", "Tars"]
