"""Autoencoders of other libraries: their files in, and ours as they read them."""

from lightsae.interop.conversion import export_foreign, load_foreign
from lightsae.interop.registry import FORMATS

__all__ = ["FORMATS", "export_foreign", "load_foreign"]
