"""Acting on a model through its autoencoders: hooks, edits, finding latents, steering."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.interventions.hooks.attach import Attached, EditHandle, Recording, attach
    from lightsae.interventions.hooks.edits import (
        Add,
        Clamp,
        Edit,
        MeanAblate,
        Scale,
        Swap,
        ZeroAblate,
    )
    from lightsae.interventions.hooks.layer_code import LayerCode
else:
    _ATTACH, _EDITS = ".hooks.attach", ".hooks.edits"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Add": _EDITS,
            "Attached": _ATTACH,
            "Clamp": _EDITS,
            "Edit": _EDITS,
            "EditHandle": _ATTACH,
            "LayerCode": ".hooks.layer_code",
            "MeanAblate": _EDITS,
            "Recording": _ATTACH,
            "Scale": _EDITS,
            "Swap": _EDITS,
            "ZeroAblate": _EDITS,
            "attach": _ATTACH,
        },
    )

__all__ = [
    "Add",
    "Attached",
    "Clamp",
    "Edit",
    "EditHandle",
    "LayerCode",
    "MeanAblate",
    "Recording",
    "Scale",
    "Swap",
    "ZeroAblate",
    "attach",
]
