"""Models of timm; they describe themselves."""

from typing import Any

from torch import nn

from lightsae.activations.extraction.models.libraries.failure import not_built, refuse_arguments
from lightsae.activations.extraction.models.name_lookup import closest
from lightsae.errors import LightsaeError
from lightsae.extras import require


def build(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """A model of `timm.create_model`.

    Args:
        name: Its name, a tag of pretrained weights behind a dot.
        pretrained: Fetch the weights.
        arguments: Of `timm.create_model`.

    Raises:
        LightsaeError: If timm does not have it, with the closest names, or cannot build it.

    Example:
        >>> build("test_vit", False, {"img_size": 32}).num_prefix_tokens
        1
    """
    refuse_arguments(arguments, {"model_name": "model.name", "pretrained": "model.pretrained"})
    timm = require("timm", extra="vision")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise LightsaeError(f"model.name: timm has no {name!r}{closest(name, known)}")
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        raise not_built(name, error, pretrained) from error
    return module
