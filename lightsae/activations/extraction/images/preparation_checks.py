"""Validation of a model's own description of its image preparation (size, mean, std, crop)."""

import math
from collections.abc import Callable, Iterable
from operator import index
from typing import Any

from lightsae.errors import LightsaeError

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_CROP_MODES = ("center", "squash", "border")


def checked(said: dict[str, Any], name: str) -> dict[str, Any]:
    """A model's own `preparation`, of which the words of timm are read and others left out.

    Args:
        said: `input_size` (a side in pixels or [C, H, W]), `mean`, `std`, `crop_pct`,
            `interpolation`, `crop_mode`, or some of these.
        name: What messages call the model.

    Returns:
        The same with `input_size` `[C, H, W]` and lists of floats.

    Raises:
        LightsaeError: If a value cannot be, naming its key.

    Example:
        >>> checked({"input_size": 32, "mean": [0.5]}, "MyNet")
        {'input_size': [1, 32, 32], 'mean': [0.5]}
        >>> checked({"interpolation": "cubic"}, "MyNet")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: preparation of MyNet: interpolation is 'cubic', expected \
one of nearest, bilinear, bicubic, box, hamming, lanczos
    """
    found: dict[str, Any] = {}
    for key, (read, expected) in _READ.items():
        if said.get(key) is None:
            continue
        try:
            found[key] = read(said[key])
        except (TypeError, ValueError):
            raise LightsaeError(
                f"preparation of {name}: {key} is {said[key]!r}, expected {expected}"
            ) from None
    numbers = {key: len(found[key]) for key in ("mean", "std") if key in found}
    channels = next(iter(numbers.values()), 3)
    if "input_size" in found:
        size = found["input_size"]
        found["input_size"] = size = size if len(size) == 3 else [channels, *size * 2]
        channels = size[0]
    for key, count in numbers.items():
        if count != channels:
            raise LightsaeError(
                f"preparation of {name}: {key} has {count} numbers, expected {channels}, one per "
                "channel"
            )
    return found


def _size(value: Any) -> list[int]:
    """One side, or channels, height and width."""
    sizes = [index(part) for part in value] if isinstance(value, Iterable) else [index(value)]
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        raise ValueError
    return sizes


def _numbers(value: Any) -> list[float]:
    """Finite numbers."""
    numbers = [float(part) for part in value]
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError
    return numbers


def _positive(value: Any) -> list[float]:
    """Finite numbers above 0."""
    numbers = _numbers(value)
    if min(numbers) <= 0:
        raise ValueError
    return numbers


def _one_positive(value: Any) -> float:
    """A finite number above 0."""
    return _positive([value])[0]


def _one_of(known: tuple[str, ...]) -> tuple[Callable[[Any], str], str]:
    """Reads one of some words, and what is expected."""

    def read(value: Any) -> str:
        if value not in known:
            raise ValueError
        return str(value)

    return read, f"one of {', '.join(known)}"


_READ: dict[str, tuple[Callable[[Any], Any], str]] = {
    "input_size": (_size, "a side in pixels, or [channels, height, width]"),
    "mean": (_numbers, "a list of numbers, one per channel"),
    "std": (_positive, "a list of numbers above 0, one per channel"),
    "crop_pct": (_one_positive, "a number above 0"),
    "interpolation": _one_of(_INTERPOLATIONS),
    "crop_mode": _one_of(_CROP_MODES),
}
