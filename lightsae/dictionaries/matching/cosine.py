"""The most parallel direction of another dictionary, in blocks."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

# Rows of the two sides of a block of cosines: 32 MiB of float32.
_ROWS, _OTHERS = 1024, 8192


class Nearest(NamedTuple):
    """The most similar latent of another dictionary.

    Attributes:
        similarity: Of each latent with that one [n], float32 or float64; NaN where there is none.
        index: Which it is, the lowest of equals [n], int64; -1 where there is none.
    """

    similarity: Tensor
    index: Tensor


@torch.no_grad()
def nearest_cosines(W: Tensor, others: Tensor) -> Nearest:
    """Of each direction the most parallel one of another dictionary, and its cosine.

    `max_j cos(w_i, o_j)`, signed: opposite directions are not the same latent. In blocks, so the
    n m cosines are never held at once; in float64 where one side is, else in float32. A row of
    zeros has no direction: it has no nearest one, and is nobody's.

    Args:
        W: Directions, such as decoder rows [n, d].
        others: Directions of the other dictionary [m, d].

    Raises:
        LightsaeError: If they are no such matrices, differ in width or are not finite.

    Example:
        >>> W = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
        >>> nearest_cosines(W, torch.tensor([[3.0, 4.0], [0.0, 5.0], [4.0, 3.0]]))
        Nearest(similarity=tensor([ 0.8000, -0.6000]), index=tensor([2, 2]))
    """
    _require_directions(W=W, others=others)
    dtype = torch.float64 if torch.float64 in (W.dtype, others.dtype) else torch.float32
    similarity = torch.full((len(W),), -torch.inf, dtype=dtype, device=W.device)
    index = torch.full((len(W),), -1, device=W.device)
    for first in range(0, len(others), _OTHERS):
        unit_others, present = _unit(others[first : first + _OTHERS].to(dtype))
        for start in range(0, len(W), _ROWS):
            unit, _ = _unit(W[start : start + _ROWS].to(dtype))
            cosines = (unit @ unit_others.T).masked_fill_(~present, -torch.inf)
            best, place = cosines.max(dim=1)
            rows = slice(start, start + len(unit))
            better = best > similarity[rows]
            similarity[rows] = best.where(better, similarity[rows])
            index[rows] = (place + first).where(better, index[rows])
    lost = (torch.linalg.vector_norm(W.to(dtype), dim=1) == 0) | (index < 0)
    return Nearest(similarity.clamp_(-1, 1).masked_fill_(lost, torch.nan), index.where(~lost, -1))


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit norm, and which have a direction; rows of zeros stay zeros."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    present = norms[:, 0] > 0
    return rows / norms.where(norms > 0, 1), present


def _require_directions(**matrices: Tensor) -> None:
    """Raise on what is no pair of finite matrices of one width."""
    widths = []
    for name, each in matrices.items():
        if not isinstance(each, Tensor) or each.ndim != 2 or not each.is_floating_point():
            told = list(each.shape) if isinstance(each, Tensor) else type(each).__name__
            raise LightsaeError(f"{name} is {told}, expected floats [latents, width]")
        if not each.isfinite().all():
            raise LightsaeError(f"{name} must be finite")
        widths.append(each.shape[1])
    if len(set(widths)) > 1:
        told = " and ".join(f"{name} {w}" for name, w in zip(matrices, widths, strict=True))
        raise LightsaeError(f"directions differ in width: {told}")
