"""Images by number from Hugging Face datasets, WebDataset tars and arrays, as torch datasets."""

from lightsae.activations.extraction.image_sources.array_images import ArrayFile
from lightsae.activations.extraction.image_sources.huggingface import HuggingFace
from lightsae.activations.extraction.image_sources.tars import Tars

__all__ = ["ArrayFile", "HuggingFace", "Tars"]
