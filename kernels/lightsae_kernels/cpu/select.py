"""Exact Top-k of ReLU(z) over maxima of groups of columns; ties go to the lowest index.

The k-th largest maximum bounds the k-th largest value from below, so the Top-k lies in the k groups
with the largest maxima. ReLU is applied to the maxima and to the few columns that are left, so the
whole of z is read and never written.

Both selections are of integers, key = column - (bits << half of the key): bits of floats that are
not negative have the order of the floats, so the smallest keys are the largest values, and no two
are equal.

Shapes: z [B, N], N = d_sae.
"""

from math import isqrt

import torch
from torch import Tensor

# numpy sorts several times faster than torch, but on one thread.
_FEW_THREADS = 4


def select_topk(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and int64 indices of the k largest of each row, as `reference.select_topk` has them.

    Args:
        z: Pre-activations, or activations, [B, N].
        k: How many to keep, 1 <= k <= N.

    Returns:
        Values of ReLU(z) [B, k], descending, and indices [B, k]; NaN counts as largest.
    """
    if not bool(torch.isfinite(z @ z.new_ones(z.shape[1])).all()):
        # Bits of a NaN may have any sign.
        z = z.masked_fill(z.isnan(), torch.nan)
    # Values of two bytes tie often.
    spare = max(8, k // 4) if z.element_size() == 2 else 1
    values, indices, straddling = _keep(z, k, k + spare)
    if len(straddling):
        values[straddling], indices[straddling], _ = _keep(z[straddling], k, z.shape[1])
    return values, indices


def _keep(z: Tensor, k: int, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top-k of the columns in the `kept` best groups, and the rows that may need others, too.

    What is left out does not exceed the last group kept: it matters where the threshold ties.
    """
    columns, bound = _shortlist(z, kept)
    values, indices = (_sort if z.dtype == torch.float64 else _topk_by_key)(z, columns, k)
    if bound is None:
        return values, indices, indices.new_empty(0)
    return values, indices, (_bits(values[:, -1]) == bound).nonzero().squeeze(1)


def _shortlist(z: Tensor, kept: int) -> tuple[Tensor | None, Tensor | None]:
    """Columns [B, C] of the `kept` groups with the largest maxima, and the bits of the last one.

    None means all columns. Groups are strided, so that their maxima are one vectorised pass.
    """
    size = isqrt(z.shape[1] // (2 * kept))
    if size < 2:
        return None, None
    groups = z.shape[1] // size
    maxima = _bits(z)[:, : groups * size].unflatten(1, (size, groups)).amax(dim=1)
    keys = _smallest(_keys(maxima, torch.arange(groups), groups), kept)
    best, bound = _column(keys), _value(keys[:, -1])
    columns = (best[:, None] + groups * torch.arange(size)[:, None]).flatten(1)
    tail = torch.arange(groups * size, z.shape[1]).expand(len(z), -1)
    return torch.cat([columns, tail], dim=1) if tail.shape[1] else columns, bound


def _topk_by_key(z: Tensor, columns: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    bits = _bits(z) if columns is None else _bits(z).gather(1, columns)
    columns = torch.arange(z.shape[1]) if columns is None else columns
    keys = _smallest(_keys(bits, columns, z.shape[1]), k)
    return _value(keys).to(bits.dtype).view(z.dtype), _column(keys)


def _sort(z: Tensor, columns: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """For float64, whose bits fill the widest key."""
    everything = torch.arange(z.shape[1]).expand_as(z)
    listed = everything if columns is None else columns.sort(dim=1).values
    values, order = z.gather(1, listed).relu_().sort(dim=1, descending=True, stable=True)
    return values[:, :k].contiguous(), listed.gather(1, order[:, :k])


def _bits(z: Tensor) -> Tensor:
    """Integers that do not fall where z rises; float64 is rounded to float32."""
    if z.element_size() == 2:
        return z.view(torch.int16)
    return z.to(torch.float32).view(torch.int32)


def _keys(bits: Tensor, columns: Tensor, n: int) -> Tensor:
    narrow = bits.element_size() == 2 and n <= 1 << 16
    columns = columns.to(torch.int32 if narrow else torch.int64)
    return torch.sub(columns, bits.clamp_min(0), alpha=1 << 4 * columns.element_size())


def _column(keys: Tensor) -> Tensor:
    return keys.bitwise_and((1 << 4 * keys.element_size()) - 1).long()


def _value(keys: Tensor) -> Tensor:
    return keys.bitwise_right_shift(4 * keys.element_size()).neg_()


def _smallest(keys: Tensor, k: int) -> Tensor:
    """The k smallest of each row, ascending; keys are reordered."""
    if torch.get_num_threads() > _FEW_THREADS:
        return keys.topk(k, dim=1, largest=False).values
    keys.numpy().partition(k - 1, axis=1)
    smallest = keys[:, :k].contiguous()
    smallest.numpy().sort(axis=1)
    return smallest
