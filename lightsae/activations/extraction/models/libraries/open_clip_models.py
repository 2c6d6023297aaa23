"""Models of open_clip."""

from typing import Any

from torch import nn

from lightsae.activations.extraction.models.libraries.described import describe, square
from lightsae.activations.extraction.models.libraries.failure import not_built, refuse_arguments
from lightsae.activations.extraction.models.name_lookup import closest
from lightsae.errors import LightsaeError
from lightsae.extras import require

# timm's words for how an image is brought to the size of the model.
_CROP_MODES = {"shortest": "center", "longest": "border", "squash": "squash"}


def build(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """A model of `open_clip.create_model`, images and text.

    Args:
        name: Its name, or hf-hub:... or local-dir:FOLDER, which bring their weights.
        pretrained: Fetch the weights that `pretrained` among the arguments names.
        arguments: Of `create_model`.

    Raises:
        LightsaeError: If open_clip does not have it, with the closest names, or cannot build it,
            or it is not said which weights are wanted.
    """
    options = {"model_name": "model.name", "load_weights": "model.pretrained"}
    if isinstance(arguments.get("pretrained"), bool):
        options["pretrained"] = "model.pretrained"
    refuse_arguments(arguments, options)
    open_clip = require("open_clip", extra="models")
    brings = ":" in name
    known = open_clip.list_models()
    if not brings and name not in known:
        raise LightsaeError(f"model.name: open_clip has no {name!r}{closest(name, known)}")
    if pretrained and not brings:
        _require_tag(open_clip, name, arguments)
    chosen = {**arguments, **({} if pretrained else {"pretrained": None, "load_weights": False})}
    try:
        module = open_clip.create_model(name, **chosen)
        found = open_clip.get_model_preprocess_cfg(module)
    except Exception as error:
        raise not_built(name, error, pretrained and not brings) from error
    return describe(module, _preparation(found))


def _require_tag(open_clip: Any, name: str, arguments: dict[str, Any]) -> None:
    """A name has weights of several trainings, and none by default."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    given = arguments.get("pretrained")
    if given is None:
        raise LightsaeError(
            f"model.arguments.pretrained: open_clip's {name} wants one of {', '.join(tags)}; or "
            "give model.weights, or model.pretrained false"
        )


def _preparation(found: dict[str, Any]) -> dict[str, Any]:
    """What open_clip says, in timm's words."""
    return {
        "input_size": (3, *square(found["size"])),
        "mean": list(found["mean"]),
        "std": list(found["std"]),
        "crop_pct": 1.0,
        "interpolation": found["interpolation"],
        "crop_mode": _CROP_MODES[found["resize_mode"]],
    }
