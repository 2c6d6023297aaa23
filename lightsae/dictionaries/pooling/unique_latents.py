"""Latents of several dictionaries, each direction once."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightsae.dictionaries.pooling.firing_rows import FiringRows
from lightsae.errors import LightsaeError

Order = Literal["stability", "frequency"]
# Latents that are compared at once with those kept, and how many of these at once.
_BLOCK, _KEPT = 512, 8192


class UniqueLatents(NamedTuple):
    """Latents that are nobody's duplicate, those kept first first.

    Attributes:
        dictionary: Which dictionary each is from [n], int64.
        latent: Its number there [n], int64.
        stability: Mean share of the other dictionaries that have it [n], float64.
        firings: Rows that it fires on [n], int64.
    """

    dictionary: Tensor
    latent: Tensor
    stability: Tensor
    firings: Tensor


@torch.no_grad()
def unique_latents(
    decoders: Sequence[Tensor],
    stability: Tensor,
    firings: FiringRows,
    *,
    cosine: float = 0.7,
    iou: float = 0.7,
    order: Order = "stability",
    most: int | None = None,
) -> UniqueLatents:
    """Latents of several dictionaries without duplicates, greedily (ours, after arXiv 2606.12138).

    Latents are visited in order. One is a duplicate if its cosine with a latent kept before, of
    whichever dictionary, is at least `cosine`, or its co-firing IoU with one at least `iou`. A
    latent that never fires, or has no direction, is not visited.

    Args:
        decoders: W_dec of each dictionary, [d_sae, d_in].
        stability: Of all latents, one dictionary after the other [sum of d_sae], float.
        firings: Their firings on some rows.
        cosine: From which on directions are the same; above 1 they never are.
        iou: From which on firings are the same; above 1 they never are.
        order: The most stable first, of equals the most frequent; or the most frequent first, of
            equals the most stable. Of equals in both, the first.
        most: Stop when so many are kept.

    Raises:
        LightsaeError: If an argument is out of range or of another size.

    Example:
        >>> from lightsae.sae import SparseCode
        >>> decoders = [torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 1.0]])]
        >>> firings = FiringRows([2, 2])
        >>> code = SparseCode(torch.ones(1, 2), torch.tensor([[0, 1]]), 2)
        >>> firings.update([code, code])
        >>> stability = torch.tensor([0.0, 1.0, 1.0, 0.0])
        >>> found = unique_latents(decoders, stability, firings, cosine=0.9, iou=2)
        >>> found.dictionary.tolist(), found.latent.tolist()
        ([0, 0, 1], [1, 0, 1])
    """
    sizes = [len(W_dec) for W_dec in decoders]
    counts = firings.counts()
    if len(stability) != sum(sizes) or len(counts) != sum(sizes):
        raise LightsaeError(
            f"stability has {len(stability)} latents, firings {len(counts)}, the dictionaries "
            f"{sum(sizes)}"
        )
    require_settings(cosine, iou, order, most)
    rows = torch.cat([W_dec.detach().cpu() for W_dec in decoders])
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    stability = stability.double().cpu().nan_to_num(0)
    keys = (counts, stability) if order == "stability" else (stability, counts)
    visited = torch.arange(len(rows))
    for key in keys:  # by the last key, equals by the one before
        visited = visited[key[visited].argsort(descending=True, stable=True)]
    visited = visited[((counts > 0) & (norms[:, 0] > 0))[visited]]
    unit = rows / norms.where(norms > 0, 1)
    kept = _Greedy(unit, firings, cosine, iou).kept(visited, most)
    starts = torch.tensor([0, *sizes]).cumsum(0)
    dictionary = torch.bucketize(kept, starts[1:], right=True)
    return UniqueLatents(dictionary, kept - starts[dictionary], stability[kept], counts[kept])


def require_settings(cosine: float, iou: float, order: str, most: int | None) -> None:
    """Refuse thresholds, an order or a size that mean nothing."""
    for name, value in (("cosine", cosine), ("iou", iou)):
        if not value > 0:
            raise LightsaeError(f"{name} is {value}, expected a number above 0")
    if order not in get_args(Order):
        raise LightsaeError(f"order is {order!r}, expected one of {', '.join(get_args(Order))}")
    if most is not None and most < 1:
        raise LightsaeError(f"d_sae is {most}, expected at least 1")


class _Greedy:
    """What is a duplicate of what."""

    def __init__(self, unit: Tensor, firings: FiringRows, cosine: float, iou: float) -> None:
        self._unit, self._firings, self._cosine, self._iou = unit, firings, cosine, iou

    def kept(self, visited: Tensor, most: int | None) -> Tensor:
        """The numbers that are kept, in the order of the visit."""
        kept = visited[:0]
        for block in visited.split(_BLOCK):
            for before in kept.split(_KEPT) if len(kept) else ():
                block = block[~self._same(block, before).any(dim=1)]
            kept = torch.cat([kept, block[self._first(self._same(block, block))]])
            if most is not None and len(kept) >= most:
                return kept[:most]
        return kept

    def _same(self, latents: Tensor, others: Tensor) -> Tensor:
        same = self._unit[latents] @ self._unit[others].T >= self._cosine
        if self._iou <= 1:
            same |= self._firings.iou(latents, others) >= self._iou
        return same

    @staticmethod
    def _first(same: Tensor) -> Tensor:
        """Which of a block are no duplicates of one kept before."""
        kept = torch.zeros(len(same), dtype=torch.bool)
        for place in range(len(same)):
            kept[place] = not (same[place, :place] & kept[:place]).any()
        return kept
