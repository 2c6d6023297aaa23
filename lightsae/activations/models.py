"""The public import path of `lightsae.activations.extraction.models`."""

from lightsae.activations.extraction.models import (
    Inputs,
    LayerTap,
    Library,
    ModelOptions,
    closest,
    import_object,
    load_model,
    weights_hash,
)

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
