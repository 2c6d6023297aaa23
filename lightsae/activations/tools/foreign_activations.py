"""Activations in another program's file, and what such files have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lightsae.activations.extraction.models import closest
from lightsae.errors import LightsaeError


class Foreign(NamedTuple):
    """Activations `[N, D]`, or `[N, T, D]` with T vectors for each of N samples.

    Attributes:
        shape: `(N, T, D)`.
        read: From a slice of samples, their activations `[n, T, D]`, float of any width.
        model: Name of the model, if known.
        layer: Name of the layer, if known.
        tokens: Kind of the vectors, if known.
    """

    shape: tuple[int, int, int]
    read: Callable[[slice], torch.Tensor]
    model: str = ""
    layer: str = ""
    tokens: str = ""


def shape_of(shape: Sequence[int], source: Path, name: str = "the array") -> tuple[int, int, int]:
    """Samples, vectors of each and width.

    Args:
        shape: Of an array.
        source: Where it is, for the message.
        name: What the message calls it.

    Raises:
        LightsaeError: If it has other than two or three dimensions, or nothing in it.

    Example:
        >>> shape_of([10, 4], Path("a.npy"))
        (10, 1, 4)
    """
    if len(shape) == 2:
        shape = (shape[0], 1, shape[1])
    if len(shape) != 3 or min(shape) < 1:
        raise LightsaeError(f"{source}: {name} is {list(shape)}, expected [N, D] or [N, T, D]")
    return shape[0], shape[1], shape[2]


def chosen(names: list[str], key: str | None, source: Path) -> str:
    """The only array, or the one asked for.

    Args:
        names: All there are.
        key: The one asked for, if any.
        source: Where they are, for the message.

    Raises:
        LightsaeError: If there is none, or not the one asked for, or several and none is asked for.

    Example:
        >>> chosen(["acts"], None, Path("a.npz"))
        'acts'
    """
    if not names:
        raise LightsaeError(f"{source}: has no array")
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        near = closest(key, names) if key else ""
        asked = "several arrays, key says which" if key is None else f"no array {key!r}{near}"
        raise LightsaeError(f"{source}: {asked} (it has {', '.join(names)})")
    return key


def refuse_key(key: str | None, source: Path) -> None:
    """Refuse a name where nothing has one.

    Args:
        key: What was asked for, if anything.
        source: Where, for the message.

    Raises:
        LightsaeError: If something was.

    Example:
        >>> refuse_key("acts", Path("a.npy"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: a.npy: key is 'acts', but it has no names to choose from
    """
    if key is not None:
        raise LightsaeError(f"{source}: key is {key!r}, but it has no names to choose from")


def floats(tensor: torch.Tensor, source: Path) -> torch.Tensor:
    """The tensor, if it holds floats.

    Args:
        tensor: Any.
        source: Where it is, for the message.

    Raises:
        LightsaeError: If it does not.

    Example:
        >>> floats(torch.zeros(2), Path("a.pt"))
        tensor([0., 0.])
    """
    if not tensor.is_floating_point():
        raise LightsaeError(f"{source}: the tensor is {tensor.dtype}, expected floats")
    return tensor
