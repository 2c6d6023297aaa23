"""Codes as metrics take them: a `SparseCode`, or values and indices, checked."""

from typing import TypeVar

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae.code import SparseCode

Code = SparseCode | Tensor

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
_T = TypeVar("_T")


def unpacked(values: Code, indices: Tensor | None, d_sae: int | None) -> tuple[Tensor, Tensor, int]:
    """Values, indices and d_sae, from a code or as given.

    Args:
        values: A code, or activations of any shape.
        indices: Latents of the same shape and on the same device, integers; not beside a code.
        d_sae: Number of latents; that of a code where left out.

    Returns:
        Values, int64 indices and d_sae.

    Raises:
        LightsaeError: If they do not fit together, or a latent is not in the dictionary.

    Example:
        >>> code = SparseCode(torch.ones(1, 1), torch.tensor([[3]]), d_sae=4)
        >>> unpacked(code, None, None)
        (tensor([[1.]]), tensor([[3]]), 4)
    """
    if isinstance(values, SparseCode):
        if indices is not None:
            raise LightsaeError("indices: a SparseCode has its own, leave them out")
        if d_sae not in (None, values.d_sae):
            raise LightsaeError(f"the code has d_sae = {values.d_sae}, expected d_sae = {d_sae}")
        d_sae, indices, values = values.d_sae, values.indices, values.values
    if indices is None:
        raise LightsaeError("indices is missing: give values and indices, or a SparseCode")
    d_sae = required("d_sae", d_sae)
    if values.shape != indices.shape:
        raise LightsaeError(
            f"indices has shape {list(indices.shape)}, expected values' {list(values.shape)}"
        )
    if values.device != indices.device:
        raise LightsaeError(f"values is on {values.device} but indices is on {indices.device}")
    indices = within("indices", integers("indices", indices), d_sae, f"d_sae = {d_sae}")
    return values.detach(), indices, d_sae


def after(
    values: Code, indices: Tensor | None, other: Tensor | None, name: str
) -> tuple[Tensor | None, Tensor]:
    """Indices and the argument behind them; behind a code, that one may come second.

    Args:
        values: A code, or activations.
        indices: Latents; beside a code and without `other`, that is what it is.
        other: The argument behind them.
        name: What the message calls it.

    Raises:
        LightsaeError: If the argument is missing.
    """
    if isinstance(values, SparseCode) and other is None:
        indices, other = None, indices
    elif indices is None and not isinstance(values, SparseCode):
        raise LightsaeError("indices is missing: give values and indices, or a SparseCode")
    return indices, required(name, other)


def required(name: str, given: _T | None) -> _T:
    """An argument that only a code makes superfluous.

    Example:
        >>> required("d_sae", None)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: d_sae is missing
    """
    if given is None:
        raise LightsaeError(f"{name} is missing")
    return given


def integers(name: str, tensor: Tensor) -> Tensor:
    """An integer tensor as int64, so that no product of its numbers overflows early.

    Args:
        name: What the message calls it.
        tensor: int8, int16, int32, int64 or uint8.

    Raises:
        LightsaeError: If it holds something else; float64 counts only to 2^53.

    Example:
        >>> integers("indices", torch.tensor([3], dtype=torch.int32))
        tensor([3])
    """
    if tensor.dtype not in _INTEGERS:
        raise LightsaeError(f"{name} is {tensor.dtype}, expected integers such as int64")
    return tensor.long()


def within(name: str, index: Tensor, size: int, legend: str) -> Tensor:
    """The index, refused if a number of it is negative or not below `size`.

    Example:
        >>> within("indices", torch.tensor([4]), 4, "d_sae = 4")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: indices must lie in [0, d_sae = 4)
    """
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise LightsaeError(f"{name} must lie in [0, {legend})")
    return index


def pair_keys(rows: Tensor, columns: Tensor, n_rows: int, n_columns: int, legend: str) -> Tensor:
    """Each (row, column) as the one integer row * n_columns + column.

    Args:
        rows: In [0, n_rows), int64. Arbitrary numbers, such as sample indices, are replaced by
            their position among the distinct ones first.
        columns: In [0, n_columns), int64.
        n_rows: Number of rows.
        n_columns: Number of columns.
        legend: What the message calls the two numbers.

    Raises:
        LightsaeError: If there are more pairs than int64 can count.

    Example:
        >>> pair_keys(torch.tensor([2]), torch.tensor([1]), 3, 10, "3 rows and 10 columns")
        tensor([21])
    """
    if n_rows * n_columns > torch.iinfo(torch.int64).max:
        raise LightsaeError(f"{legend}: more pairs than int64 can count")
    return rows * n_columns + columns
