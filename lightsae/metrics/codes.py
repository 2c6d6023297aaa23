"""Codes as metrics take them: integers of any width as int64, pairs of integers as one key."""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


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
