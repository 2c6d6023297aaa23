"""Exact Top-k of non-negative rows in two stages; ties go to the lowest index.

The row is split into groups and each group is represented by its maximum. The k-th largest maximum
bounds the k-th largest value from below, so the Top-k lies in the k groups with the largest maxima.

Shapes: a [B, N], N = d_sae, G groups members, M = N // G groups.
"""

import math

import torch
from torch import Tensor

_KEY_BITS = 16
_MAX_KEYED = 1 << _KEY_BITS
# Beyond k, so that ties at the threshold seldom reach the groups left out.
_SPARE_GROUPS = 8


def select_topk(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and int64 indices of the k largest of each row, as `reference.select_topk` has them.

    Args:
        a: Non-negative activations, [B, N].
        k: How many to keep, 1 <= k <= N.

    Returns:
        Values [B, k], descending, and indices [B, k]; NaN counts as largest.
    """
    if k == a.shape[1]:
        values, indices = a.sort(dim=-1, descending=True, stable=True)
        return values, indices
    if a.element_size() == 2 and a.shape[1] <= _MAX_KEYED:
        return _topk_by_key(a, k)
    return _topk_by_value(a, k)


def _topk_by_key(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Two-byte values tie often: (bits, reversed index) in one int32 is a key without ties."""
    columns, bound = _candidates(a, k + max(_SPARE_GROUPS, k // 4))
    indices = _largest_keys(a.gather(1, columns), columns, k)
    values = a.gather(1, indices)
    straddling = (values[:, -1] <= bound).nonzero().squeeze(1)
    if len(straddling):
        rows = a[straddling]
        everywhere = torch.arange(a.shape[1]).expand(len(straddling), -1)
        chosen = _largest_keys(rows, everywhere, k)
        indices[straddling], values[straddling] = chosen, rows.gather(1, chosen)
    return values, indices


def _largest_keys(a: Tensor, columns: Tensor, k: int) -> Tensor:
    keys = a.view(torch.int16).to(torch.int32)
    keys.bitwise_and_(0x7FFF).bitwise_left_shift_(_KEY_BITS)
    keys.bitwise_or_((_MAX_KEYED - 1 - columns).to(torch.int32))
    return (_MAX_KEYED - 1 - keys.topk(k, dim=1).values.bitwise_and_(_MAX_KEYED - 1)).long()


def _topk_by_value(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """One element beyond k tells whether a tie straddles the threshold; such rows are redone."""
    columns, _ = _candidates(a, k + 1)
    top, position = a.gather(1, columns).topk(k + 1, dim=1)
    values, indices = top[:, :k].contiguous(), columns.gather(1, position[:, :k])
    straddling = (top[:, k] == top[:, k - 1]).nonzero().squeeze(1)
    if len(straddling):
        indices[straddling] = _lowest_of_ties(a[straddling], top[straddling, k - 1, None], k)
    tied = (top[:, :-1] == top[:, 1:]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        ascending = indices[tied].sort(dim=1).values
        tied_values, order = a[tied].gather(1, ascending).sort(dim=1, descending=True, stable=True)
        values[tied], indices[tied] = tied_values, ascending.gather(1, order)
    return values, indices


def _lowest_of_ties(a: Tensor, threshold: Tensor, k: int) -> Tensor:
    above, equal = a > threshold, a == threshold
    room = k - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    return keep.nonzero()[:, 1].view(len(a), k)


def _candidates(a: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Columns [B, C] of the `kept` best groups of each row, and a bound [B] on the other columns.

    Groups are strided, so that their maxima are one vectorised pass over contiguous runs.
    """
    rows, n = a.shape
    size = math.isqrt(n // kept)
    groups = n // max(size, 1)
    if size < 2 or groups <= kept:
        return torch.arange(n).expand(rows, -1), a.new_full((rows,), -1.0)
    maxima = a[:, : groups * size].unflatten(1, (size, groups)).amax(dim=1)
    best, group = _comparable(maxima).topk(kept + 1, dim=1)
    members = groups * torch.arange(size).view(1, -1, 1)
    columns = (group[:, None, :kept] + members).flatten(1)
    if groups * size < n:
        tail = torch.arange(groups * size, n).expand(rows, -1)
        columns = torch.cat([columns, tail], dim=1)
    return columns, best[:, kept].to(a.dtype)


def _comparable(a: Tensor) -> Tensor:
    return a.float() if a.element_size() == 2 else a
