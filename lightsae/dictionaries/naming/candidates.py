"""The few most parallel directions of a vocabulary, in blocks."""

import torch
from torch import Tensor

from lightsae.dictionaries.matching.nearest import Nearest
from lightsae.errors import LightsaeError

# Rows of the two sides of a block of cosines: 32 MiB of float32.
_ROWS, _OTHERS = 1024, 8192


@torch.no_grad()
def nearest_candidates(W: Tensor, others: Tensor, n: int) -> Nearest:
    """Of each direction the n most parallel ones among others, the first of equals first.

    The first column is what `nearest_cosines` finds. In blocks, so all cosines are never held at
    once; in float64 where one side is, else in float32.

    Args:
        W: Directions, such as decoder rows [d_sae, d].
        others: Those of a vocabulary [V, d].
        n: How many, at least 1.

    Returns:
        Similarities and indices, [d_sae, n] each; NaN and -1 where W is zero or V ends.

    Raises:
        LightsaeError: If n is less than 1, or the two differ in width or are not finite.

    Example:
        >>> words = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
        >>> nearest_candidates(torch.tensor([[2.0, 0.0]]), words, n=2)
        Nearest(similarity=tensor([[0.6000, 0.0000]]), index=tensor([[1, 0]]))
    """
    if n < 1:
        raise LightsaeError(f"candidates is {n}, expected at least 1")
    _require_directions(W=W, vocabulary=others)
    if W.shape[1] != others.shape[1]:
        raise LightsaeError(
            f"W_dec has width {W.shape[1]}, the vocabulary {others.shape[1]}: they are of "
            "different spaces"
        )
    dtype = torch.float64 if torch.float64 in (W.dtype, others.dtype) else torch.float32
    rows = [_of_rows(part.to(dtype), others, n) for part in W.split(_ROWS)] or [
        (W.new_empty(0, n, dtype=dtype), W.new_empty(0, n, dtype=torch.long))
    ]
    similarity, index = (torch.cat(parts) for parts in zip(*rows, strict=True))
    lost = similarity == -torch.inf
    return Nearest(similarity.clamp_(-1, 1).masked_fill_(lost, torch.nan), index)


def _of_rows(rows: Tensor, others: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The best of some rows; -inf and -1 where there is none."""
    unit, has_direction = _unit(rows)
    best = rows.new_full((len(rows), n), -torch.inf)
    index = torch.full((len(rows), n), -1, device=rows.device)
    for first in range(0, len(others), _OTHERS):
        unit_others, present = _unit(others[first : first + _OTHERS].to(rows.dtype))
        cosines = (unit @ unit_others.T).masked_fill_(~present, -torch.inf)
        cosines.masked_fill_(~has_direction.unsqueeze(1), -torch.inf)
        found, places = _largest(cosines, n)
        merged = torch.cat([best, found], dim=1)
        # Stable: of equals those of earlier blocks stay before.
        best, order = (each[:, :n] for each in merged.sort(dim=1, descending=True, stable=True))
        places = places.add_(first).masked_fill_(found == -torch.inf, -1)
        index = torch.cat([index, places], dim=1).gather(1, order)
    return best, index


def _largest(cosines: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest of each row, the first of equals first (`topk` takes any); in place."""
    values, places = [], []
    for _ in range(min(n, cosines.shape[1])):
        value, place = cosines.max(dim=1, keepdim=True)
        values.append(value)
        places.append(place)
        cosines.scatter_(1, place, -torch.inf)
    return torch.cat(values, dim=1), torch.cat(places, dim=1)


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit norm, and which have a direction."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / norms.where(norms > 0, 1), norms[:, 0] > 0


def _require_directions(**matrices: Tensor) -> None:
    for name, each in matrices.items():
        if not isinstance(each, Tensor) or each.ndim != 2 or not each.is_floating_point():
            told = list(each.shape) if isinstance(each, Tensor) else type(each).__name__
            raise LightsaeError(f"{name} is {told}, expected floats [directions, width]")
        if not each.isfinite().all():
            raise LightsaeError(f"{name} must be finite")
