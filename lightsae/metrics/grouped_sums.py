"""Sums over groups whose bits do not depend on chance, on any device."""

import torch
from torch import Tensor, segment_reduce


def grouped_sums(values: Tensor, groups: Tensor, n: int) -> Tensor:
    """Sum of the values of each group, [n] in their dtype.

    `index_add_` on a GPU adds in the order in which its threads come.

    Args:
        values: Floats [entries].
        groups: Group of each in [0, n), int64 [entries].
        n: Number of groups.

    Example:
        >>> grouped_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 3)
        tensor([2., 0., 5.])
    """
    if values.is_cpu or len(values) == 0:
        return values.new_zeros(n).index_add_(0, groups, values)
    order = groups.sort(stable=True).indices
    lengths = torch.bincount(groups, minlength=n)
    sums: Tensor = segment_reduce(values[order], "sum", lengths=lengths)
    return sums
