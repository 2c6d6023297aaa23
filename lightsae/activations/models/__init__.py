"""Frozen models by name or class path, and where in them activations are taken."""

from lightsae.activations.models.layer_tap import Inputs, LayerTap
from lightsae.activations.models.load import load_model, weights_hash
from lightsae.activations.models.names import closest, import_object
from lightsae.activations.models.options import Library, ModelOptions

__all__ = [
    "Inputs",
    "LayerTap",
    "Library",
    "ModelOptions",
    "closest",
    "import_object",
    "load_model",
    "weights_hash",
]
