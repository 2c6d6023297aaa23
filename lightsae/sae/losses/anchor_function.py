"""How near each latent is to a vocabulary, and its gradient; in blocks (arXiv 2606.27941).

With u_i the direction of latent i, v_j that of vector j, c_ij = u_i . v_j and temperature T,

    max         s_i = max_j c_ij
    logsumexp   s_i = T log (1/V sum_j exp(c_ij / T))
    softmax     s_i = sum_j p_ij c_ij,   p_ij = exp(c_ij / T) / sum_l exp(c_il / T)

    d s_i / d c_ij = [j is the first maximum],  p_ij,  p_ij (1 + (c_ij - s_i) / T)

Shapes: W [N, D], vectors [V, D]; a block of cosines is [chunk, chunk].
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Reduction = Literal["max", "logsumexp", "softmax"]


class AnchorFunction(torch.autograd.Function):
    """mean_i s_i, and mean_i max_j c_ij, which has no gradient."""

    @staticmethod
    def forward(
        ctx: Any, W: Tensor, vectors: Tensor, reduction: Reduction, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        """Both means; of each latent the sums that its gradient needs are kept."""
        with torch.autocast(W.device.type, enabled=False):
            largest, index, sums, weighted = _scan(W, vectors, reduction, temperature, chunk)
            nearness = largest
            if reduction == "logsumexp":
                nearness = largest + temperature * (sums / len(vectors)).log()
            elif reduction == "softmax":
                nearness = weighted / sums
            lost = torch.linalg.vector_norm(W, dim=1, dtype=largest.dtype) == 0
            count = max(len(W), 1)
            value, nearest = (s.masked_fill(lost, 0).sum() / count for s in (nearness, largest))
        ctx.save_for_backward(W, vectors, largest, index, sums, nearness)
        ctx.settings = reduction, temperature, chunk
        ctx.mark_non_differentiable(nearest)
        return value, nearest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of W, its part along each row taken out; none of the vectors."""
        W, vectors, largest, index, sums, nearness = ctx.saved_tensors
        reduction, temperature, chunk = ctx.settings
        gradient = torch.empty_like(W)
        with torch.autocast(W.device.type, enabled=False):
            for rows in _blocks(len(W), chunk):
                u, norms = _unit(W[rows])
                if reduction == "max":
                    pull = _unit(vectors[index[rows]], u.dtype)[0]
                else:
                    found = _Found(largest[rows, None], sums[rows, None], nearness[rows, None])
                    pull = _soft_pull(u, vectors, found, reduction, temperature, chunk)
                pull -= (pull * u).sum(dim=1, keepdim=True) * u
                pull *= grad / (len(W) * norms)
                gradient[rows] = pull.masked_fill_(norms == 0, 0)
        return gradient, None, None, None, None


def _scan(
    W: Tensor, vectors: Tensor, reduction: Reduction, temperature: float, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Largest cosine, its first place, sum of exp((c - largest) / T) and that sum weighted by c."""
    dtype = torch.promote_types(W.dtype, torch.float32)
    largest = torch.full((len(W),), -torch.inf, dtype=dtype, device=W.device)
    index = torch.zeros(len(W), dtype=torch.int64, device=W.device)
    sums, weighted = torch.zeros_like(largest), torch.zeros_like(largest)
    for columns in _blocks(len(vectors), chunk):
        v, _ = _unit(vectors[columns], dtype)
        for rows in _blocks(len(W), chunk):
            cosines = _unit(W[rows])[0] @ v.T
            best, place = cosines.max(dim=1)
            before = largest[rows]
            # What is not a number stays in sight.
            after = torch.maximum(before, best)
            if reduction != "max":
                shrunk = ((before - after) / temperature).exp_()
                shares = ((cosines - after[:, None]) / temperature).exp_()
                sums[rows] = sums[rows] * shrunk + shares.sum(dim=1)
                weighted[rows] = weighted[rows] * shrunk + shares.mul_(cosines).sum(dim=1)
            index[rows] = (place + columns.start).where(best > before, index[rows])
            largest[rows] = after
    return largest, index, sums, weighted


class _Found(NamedTuple):
    """What the forward pass keeps of a block of latents, [rows, 1] each."""

    largest: Tensor
    sums: Tensor
    nearness: Tensor


def _soft_pull(
    u: Tensor, vectors: Tensor, found: _Found, reduction: Reduction, temperature: float, chunk: int
) -> Tensor:
    """sum_j (d s_i / d c_ij) v_j of a block of latents, [rows, D]."""
    pull = torch.zeros_like(u)
    for columns in _blocks(len(vectors), chunk):
        v, _ = _unit(vectors[columns], u.dtype)
        cosines = u @ v.T
        shares = ((cosines - found.largest) / temperature).exp_().div_(found.sums)
        if reduction == "softmax":
            shares.mul_(cosines.sub_(found.nearness).div_(temperature).add_(1))
        pull.addmm_(shares, v)
    return pull


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _unit(rows: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Rows of unit norm, at least float32, and their norms [rows, 1]; rows of zeros stay zeros."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32) if dtype is None else dtype)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / norms.where(norms != 0, 1), norms
