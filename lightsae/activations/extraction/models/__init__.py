"""Frozen models by name or class path, and where in them activations are taken."""

from typing import TYPE_CHECKING

from lightsae.lazy_names import lazy_names

if TYPE_CHECKING:
    from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap
    from lightsae.activations.extraction.models.load import load_model, weights_hash
    from lightsae.activations.extraction.models.names import closest, import_object
    from lightsae.activations.extraction.models.options import Library, ModelOptions
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Inputs": ".layer_tap",
            "LayerTap": ".layer_tap",
            "Library": ".options",
            "ModelOptions": ".options",
            "closest": ".names",
            "import_object": ".names",
            "load_model": ".load",
            "weights_hash": ".load",
        },
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
