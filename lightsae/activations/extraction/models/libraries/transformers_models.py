"""Models of transformers: of images, sound or text."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightsae.activations.extraction.models.libraries.described import describe, share, square
from lightsae.activations.extraction.models.libraries.failure import not_built, refuse_arguments
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def build(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """A model of `transformers.AutoModel`, in float32.

    Args:
        name: Its name, or a folder that `save_pretrained` wrote.
        pretrained: Take the weights too, not its configuration alone.
        arguments: Of `from_pretrained`.

    Raises:
        LightsaeError: If it cannot be built, its images are not of one size (NaFlex), or it is to
            mask patches at random.
    """
    options = {"pretrained_model_name_or_path": "model.name", "pretrained": "model.pretrained"}
    refuse_arguments(arguments, options)
    transformers = require("transformers", extra="models")
    try:
        if pretrained:
            module = transformers.AutoModel.from_pretrained(name, **arguments)
        else:
            config = transformers.AutoConfig.from_pretrained(name, **arguments)
            module = transformers.AutoModel.from_config(config)
    except Exception as error:
        if isinstance(error, OSError) and not Path(name).exists():
            raise LightsaeError(
                f"model.name: there is no folder {name}, and the hub does not give it: "
                f"{reason(error)}"
            ) from error
        raise not_built(name, error) from error
    if module.config.model_type.startswith("siglip2"):
        raise LightsaeError(
            f"model.name {name}: is a SigLIP2 of any resolution (NaFlex), expected one of a fixed "
            "resolution, such as google/siglip2-base-patch16-224"
        )
    if module.config.model_type == "vit_mae":
        _see_all_patches(module, arguments)
    return describe(module.float(), _preparation(transformers, name))


def build_classifier(name: str, arguments: dict[str, Any]) -> nn.Module:
    """A model of `transformers.AutoModelForImageClassification`, in float32.

    Args:
        name: Its name, or a folder that `save_pretrained` wrote.
        arguments: Of `from_pretrained`, as those of its `AutoModel`.

    Raises:
        LightsaeError: If it cannot be built, or the checkpoint has no weights of a classifier.
    """
    transformers = require("transformers", extra="models")
    given = {key: value for key, value in arguments.items() if key != "add_pooling_layer"}
    try:
        module, told = transformers.AutoModelForImageClassification.from_pretrained(
            name, output_loading_info=True, **given
        )
    except Exception as error:
        raise LightsaeError(
            f"model.name {name}: transformers makes no classifier of images of it: {reason(error)}"
        ) from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise LightsaeError(
            f"model.name {name}: is no classifier, the checkpoint lacks its {missing[0]}"
        )
    return describe(module.float(), _preparation(transformers, name))


def _see_all_patches(module: Any, arguments: dict[str, Any]) -> None:
    """Let a masked autoencoder leave out no patch, and keep them in order.

    Without noise it draws some, by which it sorts the patches whatever their share.
    """
    if share := arguments.get("mask_ratio"):
        raise LightsaeError(
            f"model.arguments.mask_ratio is {share}: patches would be left out at random, "
            "expected 0"
        )
    module.config.mask_ratio = 0.0

    def in_order(embeddings: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        images = args[0] if args else kwargs["pixel_values"]
        height, width = square(embeddings.config.patch_size)
        places = (images.shape[2] // height) * (images.shape[3] // width)
        noise = torch.arange(places, device=images.device).expand(len(images), places)
        return args, {**kwargs, "noise": noise}

    module.embeddings.register_forward_pre_hook(in_order, with_kwargs=True)


def _preparation(transformers: Any, name: str) -> dict[str, Any] | None:
    """What the model's image processor does, in timm's words; None if it has none."""
    file = Path(name) / "preprocessor_config.json"
    try:
        if file.is_file():
            json.loads(file.read_text())
        found = transformers.AutoImageProcessor.from_pretrained(name).to_dict()
        return in_words_of_timm(found)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise LightsaeError(
            f"{file}: cannot be read, expected what save_pretrained wrote: {reason(error)}"
        ) from error
    except (OSError, ValueError, KeyError):
        return None


def in_words_of_timm(found: dict[str, Any]) -> dict[str, Any]:
    """Translate the settings of an image processor.

    Args:
        found: As its `to_dict` gives them.

    Returns:
        What `timm.data.create_transform` takes.

    Raises:
        KeyError: If there is no size among them, or a step is none of timm's.

    Example:
        >>> in_words_of_timm({"size": {"height": 224, "width": 224}, "resample": 2,
        ...     "do_normalize": False})["crop_mode"]
        'squash'
    """
    size, crop = found["size"], found.get("crop_size")
    cropped = bool(found.get("do_center_crop")) and crop is not None
    if not cropped and "shortest_edge" in size:
        raise KeyError("size")
    if not math.isclose(found.get("rescale_factor", 1 / 255), 1 / 255):
        raise KeyError("rescale_factor")
    seen = square(crop if cropped else size)
    edge = size.get("shortest_edge") or square(size)[0]
    normal = found.get("do_normalize", True)
    return {
        "input_size": (3, *seen),
        "mean": list(found["image_mean"]) if normal else [0.0] * 3,
        "std": list(found["image_std"]) if normal else [1.0] * 3,
        "crop_pct": share(seen[0], edge) if cropped else 1.0,
        "interpolation": _INTERPOLATIONS[int(found.get("resample", 3))],
        "crop_mode": "center" if cropped and "shortest_edge" in size else "squash",
    }
