"""The tensor in a layer's output that an autoencoder reads, in one order of axes and back."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from lightsae.activations.extraction.models.layer_tap import tensor_parts
from lightsae.activations.extraction.models.layouts import check_layout
from lightsae.errors import LightsaeError

_PLACES = "THW"


def require_layout(layer: str, layout: object) -> None:
    """Refuse letters that do not say what each axis is, or have two axes of features.

    Raises:
        LightsaeError: If `check_layout` does, or there are both C and D.

    Example:
        >>> require_layout("layer", "BCTD")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: layouts: 'layer' has 'BCTD': heads have an axis of their \
own, expected one axis of features
    """
    if not isinstance(layout, str):
        raise LightsaeError(f"layouts: {layer!r} has {layout!r}, expected a letter for each axis")
    try:
        check_layout(layout)
    except LightsaeError as error:
        raise LightsaeError(f"layouts: {layer!r}: {error}") from error
    if {"C", "D"} <= set(layout):
        raise LightsaeError(
            f"layouts: {layer!r} has {layout!r}: heads have an axis of their own, expected one "
            "axis of features"
        )


class Arranged(NamedTuple):
    """A tensor with the samples first and the features last.

    Attributes:
        tensor: [B, places ..., d].
        order: Axes of the layer's own tensor in this order.
    """

    tensor: Tensor
    order: tuple[int, ...]

    def back(self, tensor: Tensor) -> Tensor:
        """A tensor of this shape in the order of the layer's own."""
        own = sorted(range(len(self.order)), key=self.order.__getitem__)
        return tensor.permute(own)


def wanted_tensor(output: Any, width: int, layer: str) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The first tensor that may have a width, and how the output is with another in its place.

    Args:
        output: A tensor, or a tuple, list, mapping or dataclass that has some.
        width: Number of features.
        layer: Name, for messages.

    Raises:
        LightsaeError: If there is none.

    Example:
        >>> import torch
        >>> found, put_back = wanted_tensor((torch.zeros(2, 3), None), 3, "layer")
        >>> put_back(found + 1)
        (tensor([[1., 1., 1.],
                [1., 1., 1.]]), None)
    """
    tensors = tensor_parts(output)
    for key, tensor in tensors.items():
        if width in tensor.shape[1:] and tensor.is_floating_point():
            return tensor, partial(_with_part, output, key)
    if not tensors:
        raise LightsaeError(
            f"layer {layer!r} gives {type(output).__name__} without a tensor, expected a tensor, "
            "or a tuple, mapping or dataclass with one"
        )
    shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors.values())
    raise LightsaeError(
        f"layer {layer!r} gives {shapes}, the autoencoder there has width {width}: expected an "
        "axis of it"
    )


def _with_part(output: Any, key: Any, new: Tensor) -> Any:
    """An output with one of its parts replaced."""
    if key is None:
        return new
    if isinstance(output, Mapping):
        # transformers' ModelOutput is a dataclass too.
        return (
            replace(output, **{key: new}) if is_dataclass(output) else _with_item(output, key, new)
        )
    if isinstance(output, tuple | list):
        parts = [new if place == key else part for place, part in enumerate(output)]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return replace(output, **{key: new})


def _with_item(output: Mapping[Any, Any], key: Any, new: Tensor) -> Any:
    """A copy of a mapping, of its own kind, with another value."""
    found: Any = copy(output)
    found[key] = new
    return found


def arranged(
    tensor: Tensor, width: int, layer: str, layout: str | None, sequence_first: bool
) -> Arranged:
    """A layer's tensor, samples first and features last.

    Args:
        tensor: As the layer gave it.
        width: Number of features.
        layer: Name, for messages.
        layout: A letter for each axis: B samples, T tokens, H and W of a map, D or C features; by
            default features are last, or second where the last axis has another size.
        sequence_first: Whether tokens come before samples where no layout says.

    Raises:
        LightsaeError: If the layout is that of another tensor, or cannot be told.

    Example:
        >>> import torch
        >>> arranged(torch.zeros(2, 8, 4, 5), 8, "layer", None, False).tensor.shape
        torch.Size([2, 4, 5, 8])
    """
    letters = layout or _assumed(tensor, width, layer, sequence_first)
    features = next(letters.index(letter) for letter in "CD" if letter in letters)
    if len(letters) != tensor.ndim or tensor.shape[features] != width:
        raise LightsaeError(
            f"layer {layer!r} gives {list(tensor.shape)}, its layout is {letters!r} and the "
            f"autoencoder has width {width}: expected a letter for each axis and {width} features"
        )
    places = [axis for axis, letter in enumerate(letters) if letter in _PLACES]
    order = (letters.index("B"), *places, features)
    return Arranged(tensor.permute(order), order)


def _assumed(tensor: Tensor, width: int, layer: str, sequence_first: bool) -> str:
    """The layout by the place of the features."""
    shape = list(tensor.shape)
    ambiguous = tensor.ndim == 4 and shape[3] == width and width in shape[1:3]
    if not 2 <= tensor.ndim <= 4 or ambiguous:
        raise LightsaeError(
            f"layer {layer!r} gives {shape}: say which axis is which with layouts, such as "
            f"layouts={{{layer!r}: 'BCHW'}}"
        )
    if shape[-1] == width:
        return {2: "BD", 3: "TBD" if sequence_first else "BTD", 4: "BHWD"}[tensor.ndim]
    if tensor.ndim > 2 and shape[1] == width:
        return {3: "BDT", 4: "BCHW"}[tensor.ndim]
    raise LightsaeError(
        f"layer {layer!r} gives {shape}, the autoencoder there has width {width}: expected it as "
        "the last axis, or the second of a map"
    )
