"""Exact Top-k of ReLU(z) over maxima of groups of columns; ties go to the lowest index.

The k-th largest maximum bounds the k-th largest value from below, so the Top-k lies in the groups
with the largest maxima. A few more groups than k are kept: the largest maximum left out is then
below the k-th value unless many values tie, and such rows are selected again from all columns.

Bits of floats that are not negative have the order of the floats. Both stages partition int32 keys
of bits and place; four bytes are rounded up to make room for the place, and what stays is compared
in full.

Shapes: z [B, N], N = d_sae; C candidate columns of a row, in ascending order.
"""

from math import isqrt

import torch
from torch import Tensor

from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.row_sort import partition_rows_, sort_rows_

# Groups, or candidates, kept beyond k.
_SPARE = 8
# Maxima that a maximum of maxima is of.
_FANOUT = 4


def select_topk(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and int64 indices of the k largest of each row, as `reference.select_topk` has them.

    Args:
        z: Pre-activations, or activations, [B, N].
        k: How many to keep, 1 <= k <= N.

    Returns:
        Values of ReLU(z) [B, k], descending, and indices [B, k]; NaN counts as largest.
    """
    if z.dtype == torch.float64:
        values, order = z.relu().sort(dim=1, descending=True, stable=True)
        return values[:, :k].contiguous(), order[:, :k].contiguous()
    if not bool(torch.isfinite(z.sum(dim=1)).all()):
        # Bits of a NaN may have any sign.
        z = z.masked_fill(z.isnan(), torch.nan)
    bits = z.view(torch.int16 if z.element_size() == 2 else torch.int32)
    size = isqrt(bits.shape[1] // (2 * (k + _SPARE)))
    found, indices = _from_all(bits, k) if size < 2 else _from_groups(bits, k, size)
    _fill_zeros_(found, indices)
    if bits.dtype == torch.int16:
        found = found.bitwise_right_shift(16).to(torch.int16)
    return found.view(z.dtype), indices


def select_in_banks(z: Tensor, k: int, banks: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the k / banks largest of each of so many equal parts of every row.

    Args:
        z: Pre-activations, or activations, [B, N]; contiguous rows.
        k: How many to keep of a row.
        banks: Consecutive parts; 1 is the plain Top-k.

    Returns:
        Values of ReLU(z) [B, k], descending within a part, and indices [B, k].
    """
    if banks == 1:
        return select_topk(z, k)
    B, N = z.shape
    parts = z.view(B * banks, N // banks)
    if k == banks:
        found, within = parts.max(dim=1)
        # A part without a positive has its zero at the lowest index.
        values, indices = found.relu(), within * (found > 0)
    else:
        values, indices = select_topk(parts, k // banks)
    first = torch.arange(0, N, N // banks)
    indices = indices.view(B, banks, -1) + first[:, None]
    return values.view(B, k), indices.view(B, k)


def shortlist_topk(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Columns with large values of each row, in no order, and a bound on the values left out.

    Args:
        z: Pre-activations without NaN, [B, N] bfloat16 or float32.
        count: How many to list, below N.

    Returns:
        Columns [B, count], int64; float32 [B] that no ReLU(z) of another column exceeds.
    """
    bits = z.view(torch.int16 if z.dtype == torch.bfloat16 else torch.int32)
    size = isqrt(bits.shape[1] // (2 * count))
    if size < 2:
        places, bound = _shortlist(_widened(bits), count)
        return places.long(), bound.view(torch.float32)
    best, bound = _best_groups(bits, count, size)
    columns = _columns_of(best, bits.shape[1] // size, size, bits.shape[1])
    places, limit = _shortlist(_widened(bits.gather(1, columns)), count)
    return columns.gather(1, places.long()), torch.maximum(bound, limit).view(torch.float32)


def _best_groups(bits: Tensor, kept: int, size: int) -> tuple[Tensor, Tensor]:
    """The groups of `size` columns with the largest maxima, and a bound on the other maxima."""
    groups = bits.shape[1] // size
    with workspace.borrowed((len(bits), groups), bits.dtype) as maxima:
        torch.amax(_strided(bits, groups, size), dim=1, out=maxima)
        return _largest(_widened(maxima), kept)


def _from_groups(bits: Tensor, k: int, size: int) -> tuple[Tensor, Tensor]:
    """Bits of the Top-k as int32 and their columns, by way of maxima of `size` columns each."""
    N = bits.shape[1]
    best, bound = _best_groups(bits, k + _SPARE, size)
    sort_rows_(best)
    columns = _columns_of(best, N // size, size, N)
    candidates = _widened(bits.gather(1, columns))
    places, limit = _shortlist(candidates, k + _SPARE)
    places = places.long()
    found, places = _sorted(torch.sub(places, candidates.gather(1, places), alpha=1 << 32), k)
    indices = columns.gather(1, places)
    if bits.dtype == torch.int32 or columns.shape[1] > 1 << 16:
        bound = torch.maximum(bound, limit)
    uncertain = ((found[:, -1] <= bound) & (found[:, -1] > 0)).nonzero().squeeze(1)
    if len(uncertain):
        found[uncertain], indices[uncertain] = _from_all(bits[uncertain], k)
    return found, indices


def _largest(maxima: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Places of `kept` large values of each row and a bound on those left out; maxima of maxima."""
    G = maxima.shape[1]
    groups = G // _FANOUT
    if groups < 3 * kept:
        return _shortlist(maxima, kept)
    best, bound = _largest(_strided(maxima, groups, _FANOUT).amax(dim=1), kept)
    columns = _columns_of(best, groups, _FANOUT, G)
    places, limit = _shortlist(maxima.gather(1, columns), kept)
    best = columns.gather(1, places.long()).to(torch.int32)
    return best, torch.maximum(bound, limit)


def _strided(rows: Tensor, groups: int, size: int) -> Tensor:
    """Groups of every `groups`-th column, so that their maxima are one vectorised pass."""
    return rows[:, : groups * size].reshape(-1, size, groups)


def _columns_of(best: Tensor, groups: int, size: int, N: int) -> Tensor:
    """Columns of some groups and those of none, int64; ascending where the groups are."""
    inside = best.shape[1] * size
    columns = torch.empty(len(best), inside + N - groups * size, dtype=torch.int64)
    steps = torch.arange(0, groups * size, groups, dtype=torch.int32)[:, None]
    torch.add(best[:, None], steps, out=columns[:, :inside].unflatten(1, (size, -1)))
    columns[:, inside:] = torch.arange(groups * size, N)
    return columns


def _from_all(bits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Bits of the Top-k of all columns as int32, and their columns."""
    keys = torch.sub(torch.arange(bits.shape[1]), _widened(bits), alpha=1 << 32)
    if k < keys.shape[1]:
        partition_rows_(keys, k - 1)
    return _sorted(keys[:, :k].contiguous(), k)


def _widened(bits: Tensor) -> Tensor:
    """Bits of the rectified values as int32; two bytes become the upper ones."""
    if bits.dtype == torch.int32:
        return bits.clamp(min=0)
    return bits.clamp(min=0).to(torch.int32).bitwise_left_shift_(16)


def _shortlist(bits: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Places of the `kept` largest of each row, in no order, and a bound on what is left out.

    A key is the bits, rounded up, above the place from the right: lower places win among equals.
    Where nothing had to be rounded, only what lies further right can be equal to the bound.
    """
    B, C = bits.shape
    low = (1 << max(C - 1, 1).bit_length()) - 1
    with workspace.borrowed((B, C), torch.int32) as keys:
        torch.add(bits, low, out=keys).bitwise_and_(~low)
        keys.bitwise_or_(torch.arange(low, low - C, -1, dtype=torch.int32))
        partition_rows_(keys, C - kept)
        best = keys[:, C - kept :]
        return low - best.bitwise_and(low), best[:, 0].bitwise_and(~low)


def _sorted(keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Bits and places of the k smallest keys, place - (bits << 32), ascending."""
    sort_rows_(keys)
    keys = keys[:, :k]
    return keys.bitwise_right_shift(32).neg_().to(torch.int32), keys.bitwise_and(0xFFFFFFFF)


def _fill_zeros_(found: Tensor, indices: Tensor) -> None:
    """Where fewer than k values are positive, let zeros take the lowest columns that are free."""
    few = (found[:, -1] == 0).nonzero().squeeze(1)
    if len(few) == 0:
        return
    zero, there, k = found[few] == 0, indices[few], found.shape[1]
    taken = torch.zeros(len(few), k + 1, dtype=torch.bool)
    taken.scatter_(1, there.masked_fill(zero, k).clamp_(max=k), True)
    free = taken[:, :k].to(torch.uint8).sort(dim=1, stable=True).indices
    position = (zero.cumsum(dim=1) - 1).clamp_(min=0)
    indices[few] = torch.where(zero, free.gather(1, position), there)
