"""Frozen models by name or class path, and where in them activations are taken."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.activations.extraction.models.layer_outputs import LayerOutputs
    from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap
    from lightsae.activations.extraction.models.layouts import check_layout
    from lightsae.activations.extraction.models.load import (
        load_image_classifier,
        load_model,
        weights_hash,
    )
    from lightsae.activations.extraction.models.name_lookup import (
        closest,
        import_object,
        layer_names,
    )
    from lightsae.activations.extraction.models.options import Library, ModelOptions
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Inputs": ".layer_tap",
            "LayerOutputs": ".layer_outputs",
            "LayerTap": ".layer_tap",
            "Library": ".options",
            "ModelOptions": ".options",
            "check_layout": ".layouts",
            "closest": ".name_lookup",
            "import_object": ".name_lookup",
            "layer_names": ".name_lookup",
            "load_image_classifier": ".load",
            "load_model": ".load",
            "weights_hash": ".load",
        },
    )

__all__ = [
    "Inputs",
    "LayerOutputs",
    "LayerTap",
    "Library",
    "ModelOptions",
    "check_layout",
    "closest",
    "import_object",
    "layer_names",
    "load_image_classifier",
    "load_model",
    "weights_hash",
]
