"""Layouts of layer outputs: a letter for each axis, and outputs brought into one order.

B are the images, T tokens, H and W rows and columns of a map, C and D features; both of these where
heads have an axis of their own, as in BCTD.
"""

import math

from torch import Tensor

from lightsae.errors import LightsaeError

_PLACES, _FEATURES = "THW", "CD"


def check_layout(layout: str) -> None:
    """Refuse what is no layout.

    Raises:
        LightsaeError: If a letter is unknown or there twice, or B or the features are missing.

    Example:
        >>> check_layout("TBD")
    """
    known = set(layout) <= {"B", *_PLACES, *_FEATURES} and len(set(layout)) == len(layout)
    if not known or "B" not in layout or not set(layout) & set(_FEATURES):
        raise LightsaeError(
            f"layout is {layout!r}, expected a letter for each axis of the layer's output: B "
            "images, T tokens, H and W of a map, C or D features, such as TBD, BHWC or BCTD"
        )


def arranged(output: Tensor, layout: str) -> Tensor:
    """An output with the images first and the features last.

    Args:
        output: As the layer gave it.
        layout: A letter for each of its axes.

    Returns:
        `[B, d]` if there are no tokens, `[B, T, d]`, or of a map `[B, H, W, d]`; several axes of
        features become one, in the order in which they are.

    Example:
        >>> import torch
        >>> arranged(torch.zeros(5, 2, 8), "TBD").shape
        torch.Size([2, 5, 8])
        >>> arranged(torch.zeros(2, 4, 5, 8), "BCTD").shape
        torch.Size([2, 5, 32])
    """
    places = [axis for axis, letter in enumerate(layout) if letter in _PLACES]
    features = [axis for axis, letter in enumerate(layout) if letter in _FEATURES]
    ordered = output.permute(layout.index("B"), *places, *features)
    images, width = len(ordered), math.prod(output.shape[axis] for axis in features)
    if is_map(layout):
        return ordered.reshape(images, -1, output.shape[places[-1]], width)
    return ordered.reshape(images, -1, width) if places else ordered.reshape(images, width)


def is_map(layout: str) -> bool:
    """Whether the places of a layout are those of a map.

    Example:
        >>> is_map("BCHW"), is_map("BTD")
        (True, False)
    """
    return bool({"H", "W"} & set(layout))
