"""Sources that make a folder of shards by themselves."""

from lightsae.activations.sources.digits import DigitImages, DigitsSource
from lightsae.activations.sources.digits_models import digits_cnn, digits_vit, trained

__all__ = ["DigitImages", "DigitsSource", "digits_cnn", "digits_vit", "trained"]
