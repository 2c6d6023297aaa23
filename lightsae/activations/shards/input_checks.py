"""Rows and indices as a user has them, tensors, numpy arrays or lists, checked."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError

Given = Tensor | ArrayLike


def float_rows(given: Given, d_in: int) -> Tensor:
    """Activations as a tensor of this process's memory.

    Args:
        given: Floats `[B, d_in]`.
        d_in: Width of a row.

    Returns:
        `[B, d_in]` of the width that was given, but of float64 where torch has no wider one.

    Raises:
        LightsaeError: If it is something else.

    Example:
        >>> float_rows([[0.5, 1.0]], d_in=2)
        tensor([[0.5000, 1.0000]], dtype=torch.float64)
    """
    found = given.detach().cpu() if isinstance(given, Tensor) else _array("activations", given)
    dtype = found.dtype
    floats = dtype.is_floating_point if isinstance(dtype, torch.dtype) else dtype.kind == "f"
    if found.ndim != 2 or found.shape[1] != d_in or not floats:
        raise _unexpected("activations", found, f"floats [B, {d_in}]")
    if isinstance(found, Tensor):
        return found
    native = np.dtype(f"f{min(found.dtype.itemsize, 8)}")
    return torch.from_numpy(np.require(found, native, ["C", "W"]))


def int64_index(name: str, given: Given, rows: int) -> Array:
    """An index of rows as int64.

    Args:
        name: What the message calls it.
        given: Integers `[rows]`.
        rows: Number of rows.

    Returns:
        Int64 `[rows]`.

    Raises:
        LightsaeError: If it is something else, or a number is 2**63 or larger.

    Example:
        >>> int64_index("label", [3, 1], rows=2)
        array([3, 1])
    """
    if isinstance(given, Tensor) and (given.is_floating_point() or given.is_complex()):
        raise _unexpected(name, given, f"integers [{rows}]")
    found = given.cpu().numpy() if isinstance(given, Tensor) else _array(name, given)
    if found.shape != (rows,) or (rows and found.dtype.kind not in "iub"):
        raise _unexpected(name, found, f"integers [{rows}]")
    if found.dtype.kind == "u" and rows and int(found.max()) > np.iinfo(np.int64).max:
        raise LightsaeError(f"{name} holds {int(found.max())}, expected numbers below 2**63")
    return found.astype(np.int64)


def _array(name: str, given: ArrayLike) -> Array:
    """What numpy makes of it."""
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        kind = type(given).__name__
        raise LightsaeError(f"{name} is a {kind} that is no array: {error}") from error


def _unexpected(name: str, found: Tensor | Array, expected: str) -> LightsaeError:
    """An error about another dtype or shape."""
    dtype = str(found.dtype).removeprefix("torch.")
    names = dtype.startswith("<U") and name == "label"
    hint = ": give numbers, and the names as the manifest's classes" if names else ""
    return LightsaeError(f"{name} is {dtype} {list(found.shape)}, expected {expected}{hint}")
