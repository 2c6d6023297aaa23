"""Frozen models by name or class path, and where in them activations are taken."""

from lightsae.activations.extraction.models.layer_outputs import Compute, LayerOutputs
from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap
from lightsae.activations.extraction.models.layouts import check_layout
from lightsae.activations.extraction.models.load import load_model, weights_hash
from lightsae.activations.extraction.models.names import closest, import_object, layer_names
from lightsae.activations.extraction.models.options import Library, ModelOptions

__all__ = [
    "Compute",
    "Inputs",
    "LayerOutputs",
    "LayerTap",
    "Library",
    "ModelOptions",
    "check_layout",
    "closest",
    "import_object",
    "layer_names",
    "load_model",
    "weights_hash",
]
