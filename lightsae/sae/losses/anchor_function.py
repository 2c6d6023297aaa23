"""How near each latent is to a vocabulary, and its gradient; in blocks (arXiv 2606.27941).

With u_i the direction of latent i, v_j that of vector j, c_ij = u_i . v_j and temperature T,

    max         s_i = max_j c_ij
    logsumexp   s_i = T log (1/V sum_j exp(c_ij / T))
    softmax     s_i = sum_j p_ij c_ij,   p_ij = exp(c_ij / T) / sum_l exp(c_il / T)

    d s_i / d c_ij = [j is the first maximum],  p_ij,  p_ij (1 + (c_ij - s_i) / T)

Shapes: W [N, D], v [V, D]; a block of cosines is [chunk, chunk].
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Reduction = Literal["max", "logsumexp", "softmax"]


class AnchorFunction(torch.autograd.Function):
    """mean_i s_i, and mean_i max_j c_ij, which has no gradient; v of the dtype of u."""

    @staticmethod
    def forward(
        ctx: Any, W: Tensor, v: Tensor, reduction: Reduction, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        """Both means; of each latent the sums that its gradient needs are kept."""
        with torch.autocast(W.device.type, enabled=False):
            found = [
                _scan(W[rows], v, reduction, temperature, chunk) for rows in _blocks(len(W), chunk)
            ] or [_scan(W, v, reduction, temperature, chunk)]
            largest, index, sums, nearness = (torch.cat(part) for part in zip(*found, strict=True))
            count = max(len(W), 1)
            value, nearest = (each.sum() / count for each in (nearness, largest))
        ctx.save_for_backward(W, v, largest, index, sums, nearness)
        ctx.settings = reduction, temperature, chunk
        ctx.mark_non_differentiable(nearest)
        return value, nearest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of W, its part along each row taken out; none of the vectors."""
        W, v, largest, index, sums, nearness = ctx.saved_tensors
        reduction, temperature, chunk = ctx.settings
        gradient = torch.empty_like(W)
        with torch.autocast(W.device.type, enabled=False):
            for rows in _blocks(len(W), chunk):
                u, norms = unit_rows(W[rows])
                if reduction == "max":
                    pull = v[index[rows]]
                else:
                    found = _Found(largest[rows, None], sums[rows, None], nearness[rows, None])
                    pull = _soft_pull(u, v, found, reduction, temperature, chunk)
                pull -= (pull * u).sum(dim=1, keepdim=True) * u
                pull *= grad / len(W)
                gradient[rows] = pull.div_(norms).masked_fill_(norms == 0, 0)
        return gradient, None, None, None, None


def _scan(
    W: Tensor, v: Tensor, reduction: Reduction, temperature: float, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a block of latents the largest c, its first place, sum of exp((c - largest) / T), and s.

    Those of a latent without a direction are 0.
    """
    u, norms = unit_rows(W)
    largest = u.new_full((len(u),), -torch.inf)
    index = torch.zeros(len(u), dtype=torch.int64, device=u.device)
    sums, weighted = torch.zeros_like(largest), torch.zeros_like(largest)
    for columns in _blocks(len(v), chunk):
        cosines = u @ v[columns].T
        best, place = cosines.max(dim=1)
        before, index = largest, (place + columns.start).where(best > largest, index)
        # What is not a number stays in sight.
        largest = torch.maximum(before, best)
        if reduction != "max":
            shrunk = ((before - largest) / temperature).exp_()
            shares = (cosines - largest[:, None]).div_(temperature).exp_()
            sums = sums * shrunk + shares.sum(dim=1)
            weighted = weighted * shrunk + shares.mul_(cosines).sum(dim=1)
    nearness = largest
    if reduction == "logsumexp":
        nearness = largest + temperature * (sums / len(v)).log()
    elif reduction == "softmax":
        nearness = weighted / sums
    lost = norms[:, 0] == 0
    return largest.masked_fill(lost, 0), index, sums, nearness.masked_fill(lost, 0)


class _Found(NamedTuple):
    """What the forward pass keeps of a block of latents, [rows, 1] each."""

    largest: Tensor
    sums: Tensor
    nearness: Tensor


def _soft_pull(
    u: Tensor, v: Tensor, found: _Found, reduction: Reduction, temperature: float, chunk: int
) -> Tensor:
    """sum_j (d s_i / d c_ij) v_j of a block of latents, [rows, D]."""
    pull = torch.zeros_like(u)
    for columns in _blocks(len(v), chunk):
        cosines = u @ v[columns].T
        shares = (cosines - found.largest).div_(temperature).exp_().div_(found.sums)
        if reduction == "softmax":
            shares.mul_(cosines.sub_(found.nearness).div_(temperature).add_(1))
        pull.addmm_(shares, v[columns])
    return pull


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit norm, and their norms [rows, 1]; rows of zeros stay zeros.

    Args:
        rows: Of any norm that their dtype holds [rows, D]; both are at least float32.

    Example:
        >>> unit_rows(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        (tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]]), tensor([[5.0000e-30],
                [0.0000e+00]]))
    """
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    # By its largest entry first: squares of tiny or huge ones leave the range of floats.
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True)
    rows = rows / largest.where(largest != 0, 1)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(norms.where(norms != 0, 1)), norms * largest
