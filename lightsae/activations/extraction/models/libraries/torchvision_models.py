"""Models of torchvision."""

from typing import Any

from torch import nn

from lightsae.activations.extraction.models.libraries.described import describe, share, square
from lightsae.activations.extraction.models.libraries.failure import not_built, refuse_arguments
from lightsae.activations.extraction.models.name_lookup import closest
from lightsae.errors import LightsaeError
from lightsae.extras import require


def build(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """A model of `torchvision.models.get_model`.

    Args:
        name: Its name.
        pretrained: Fetch the weights that torchvision calls DEFAULT; `weights` among the arguments
            names others.
        arguments: Of `get_model`.

    Raises:
        LightsaeError: If torchvision does not have it, with the closest names, or cannot build it.

    Example:
        >>> module = build("vit_b_16", False, {"image_size": 32, "num_classes": 2})
        >>> module.num_prefix_tokens, module.preparation["crop_pct"]
        (1, 0.875)
    """
    refuse_arguments(arguments, {"name": "model.name", "pretrained": "model.pretrained"})
    models = require("torchvision.models", extra="vision")
    known = models.list_models()
    if name not in known:
        raise LightsaeError(f"model.name: torchvision has no {name!r}{closest(name, known)}")
    chosen = {"weights": "DEFAULT" if pretrained else None, **arguments}
    try:
        module: Any = models.get_model(name, **chosen)
        preset = models.get_model_weights(name)[_weights(chosen["weights"])].transforms()
    except Exception as error:
        raise not_built(name, error, pretrained) from error
    if isinstance(module, models.SwinTransformer):
        module.output_fmt = "NHWC"
    return describe(module, _preparation(preset, getattr(module, "image_size", None)))


def _weights(chosen: Any) -> str:
    """The name of weights, those that say how images are prepared."""
    return "DEFAULT" if chosen is None else str(getattr(chosen, "name", chosen)).rpartition(".")[2]


def _preparation(preset: Any, built_for: int | None) -> dict[str, Any] | None:
    """What the transform of a classifier's weights does; others are not made of these steps.

    The weights do not say for which size a model was built with other arguments.
    """
    if not hasattr(preset, "crop_size") or not hasattr(preset, "resize_size"):
        return None
    height, width = square(preset.crop_size)
    return {
        "input_size": (3, *square(built_for or (height, width))),
        "mean": list(preset.mean),
        "std": list(preset.std),
        "crop_pct": share(height, square(preset.resize_size)[0]),
        "interpolation": preset.interpolation.value,
    }
