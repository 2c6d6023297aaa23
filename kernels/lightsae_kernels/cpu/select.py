"""Exact Top-k of ReLU(z) over a pyramid of maxima; ties go to the lowest index.

The row is split into groups and each group is represented by its maximum. The k-th largest maximum
bounds the k-th largest value from below, so the Top-k lies in the k groups with the largest maxima;
those groups are found in the same way. ReLU is applied to the few columns that are left, so the
whole of z is read once and never written.

Shapes: z [B, N], N = d_sae.
"""

import torch
from torch import Tensor

_KEY_BITS = 16
_MAX_KEYED = 1 << _KEY_BITS
# Wide groups where the whole of z is read, narrow ones where candidates are few.
_GROUP, _INNER_GROUP = 8, 4
# Beyond k, so that ties at the threshold seldom reach the groups left out.
_SPARE = 8


def select_topk(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and int64 indices of the k largest of each row, as `reference.select_topk` has them.

    Args:
        z: Pre-activations, or activations, [B, N].
        k: How many to keep, 1 <= k <= N.

    Returns:
        Values of ReLU(z) [B, k], descending, and indices [B, k]; NaN counts as largest.
    """
    if k == z.shape[1]:
        values, indices = z.relu().sort(dim=-1, descending=True, stable=True)
        return values, indices
    if z.element_size() == 2 and z.shape[1] <= _MAX_KEYED:
        return _topk_by_key(z, k)
    return _topk_by_value(z, k)


def _topk_by_key(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Two-byte values tie often: (bits, reversed index) in one int32 is a key without ties.

    Where the last element kept still ties with the threshold, more may have been left out: such
    rows are redone with twice as many, then in full. A threshold of zero always ties.
    """
    N = z.shape[1]
    kept = min(k + max(_SPARE, k // 4), N)
    values, indices, straddling = _keep_by_key(z, k, kept)
    for more in sorted({min(2 * kept, N), N} - {kept}):
        if len(straddling):
            positive = values[straddling, -1] > 0
            redone = straddling[positive] if more < N else straddling
            top, chosen, still = _keep_by_key(z[redone], k, more)
            values[redone], indices[redone] = top, chosen
            straddling = torch.cat([straddling[~positive], redone[still]])
    return values, indices


def _keep_by_key(z: Tensor, k: int, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values and indices of the k largest, and the rows where all `kept` largest may be too few."""
    chosen = _largest_keys(z, _shortlist(z, kept), kept)
    listed = z.gather(1, chosen).relu_()
    straddling = (listed[:, k - 1] == listed[:, -1]).nonzero().squeeze(1)
    return listed[:, :k].contiguous(), chosen[:, :k].contiguous(), straddling


def _largest_keys(z: Tensor, columns: Tensor | None, kept: int) -> Tensor:
    a = z.relu() if columns is None else z.gather(1, columns).relu_()
    keys = a.view(torch.int16).to(torch.int32)
    keys.bitwise_and_(0x7FFF).bitwise_left_shift_(_KEY_BITS)
    keys.sub_(torch.arange(z.shape[1]) if columns is None else columns)
    return keys.topk(kept, dim=1).values.neg_().bitwise_and_(_MAX_KEYED - 1).long()


def _topk_by_value(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """One element beyond k tells whether a tie straddles the threshold; such rows are redone."""
    columns = _shortlist(z, k + 1)
    a = z.relu() if columns is None else z.gather(1, columns).relu_()
    top, position = a.topk(k + 1, dim=1)
    chosen = position if columns is None else columns.gather(1, position)
    values, indices = top[:, :k].contiguous(), chosen[:, :k].contiguous()
    equal = top[:, 1:] == top[:, :-1]
    straddling = equal[:, -1].nonzero().squeeze(1)
    if len(straddling):
        threshold = top[straddling, k - 1, None]
        indices[straddling] = _lowest_of_ties(z[straddling].relu_(), threshold, k)
    tied = equal.any(dim=1).nonzero().squeeze(1)
    if len(tied):
        ascending = indices[tied].sort(dim=1).values
        unordered = z[tied].gather(1, ascending).relu_()
        values[tied], order = unordered.sort(dim=1, descending=True, stable=True)
        indices[tied] = ascending.gather(1, order)
    return values, indices


def _lowest_of_ties(a: Tensor, threshold: Tensor, k: int) -> Tensor:
    # NaN is above: it compares false with everything.
    above, equal = ~(a <= threshold), a == threshold
    room = k - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    return keep.nonzero()[:, 1].view(len(a), k)


def _shortlist(z: Tensor, kept: int, size: int = _GROUP) -> Tensor | None:
    """Columns [B, C] with at least `kept` values that no other column exceeds; None means all.

    Groups are strided, so that their maxima are one vectorised pass over contiguous runs.
    """
    groups = z.shape[1] // size
    if groups <= 2 * kept:
        return None
    maxima = z[:, : groups * size].unflatten(1, (size, groups)).amax(dim=1)
    if maxima.element_size() == 2:
        maxima = maxima.float()
    inner = _shortlist(maxima, kept, _INNER_GROUP)
    best = (maxima if inner is None else maxima.gather(1, inner)).topk(kept, sorted=False).indices
    group = best if inner is None else inner.gather(1, best)
    columns = (group[:, None] + groups * torch.arange(size)[:, None]).flatten(1)
    tail = torch.arange(groups * size, z.shape[1]).expand(len(z), -1)
    return torch.cat([columns, tail], dim=1) if tail.shape[1] else columns
