"""A model's description of itself: image size, normalisation, prefix tokens.

    num_prefix_tokens    how many class and register tokens come before its patches
    preparation          how its images are prepared: what timm's create_transform takes
    output_fmt           NHWC if the channels of its maps come last

An `nn.Module` of a user may say the same.
"""

import math
from typing import Any

from torch import nn

_ONE_TOKEN = ("cls_token", "class_token", "class_embedding", "distillation_token")
_IMAGE_PARTS = ("visual", "vision_model")


def describe(module: nn.Module, preparation: dict[str, Any] | None) -> nn.Module:
    """Say of a model what is known of it.

    Args:
        module: The model, or one that has its image part as `visual` or `vision_model`.
        preparation: How its images are prepared, if that is known.

    Returns:
        The module.

    Example:
        >>> module = nn.Module()
        >>> module.class_embedding = nn.Parameter(nn.Linear(4, 1).weight)
        >>> describe(module, None).num_prefix_tokens
        1
    """
    part: Any = images_part(module)
    part.num_prefix_tokens = prefix_tokens(part)
    if preparation is not None:
        part.preparation = preparation
    return module


def images_part(module: nn.Module) -> nn.Module:
    """The encoder of images of a model that has others too; or else the module."""
    for name in _IMAGE_PARTS:
        part = getattr(module, name, None)
        if isinstance(part, nn.Module):
            return part
    return module


def prefix_tokens(module: nn.Module) -> int:
    """Count the class and register tokens that a module has parameters for.

    Example:
        >>> prefix_tokens(nn.Linear(2, 2))
        0
    """
    for inner in module.modules():
        said = getattr(inner, "num_prefix_tokens", None)
        if isinstance(said, int):
            return said
    count = 0
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        count += last in _ONE_TOKEN
        count += parameter.shape[-2] if last == "register_tokens" else 0
    return count


def square(size: Any) -> tuple[int, int]:
    """Height and width of what is one number, a pair, or a mapping of both.

    Example:
        >>> square(224), square([224]), square({"height": 256, "width": 192})
        ((224, 224), (224, 224), (256, 192))
    """
    if isinstance(size, int):
        return size, size
    pair = [size["height"], size["width"]] if hasattr(size, "keys") else list(size)
    return int(pair[0]), int(pair[-1])


def share(seen: int, side: int) -> float:
    """Share of a resized side that a crop keeps, from which timm finds the side again.

    Example:
        >>> share(224, 256)
        0.875
        >>> math.floor(224 / (224 / 400)), math.floor(224 / share(224, 400))
        (399, 400)
    """
    kept = seen / side
    return kept if math.floor(seen / kept) == side else math.nextafter(kept, 0)
