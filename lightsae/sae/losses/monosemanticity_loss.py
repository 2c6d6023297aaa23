"""Monosemanticity of a batch's code as a penalty (MonoLoss, arXiv 2602.12403).

With a_nj the activation of latent j on sample n, w_nj = a_nj / max_n a_nj and e_n the sample's
unit-norm embedding,

    MS_j = sum_{n != m} w_nj w_mj e_n . e_m / sum_{n != m} w_nj w_mj
         = (|S_j|^2 - q_j) / ((sum_n w_nj)^2 - q_j),   S_j = sum_n w_nj e_n,   q_j = sum_n w_nj^2

The maximum cancels, and so does its gradient: it is a constant that keeps the sums in range.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from lightsae.errors import LightsaeError
from lightsae.sae.regularizers import CodeRegularizer

# Pair weight over (sum w)^2, in roundings of S, below which there is no second activation to tell.
_ROUNDINGS = 64


class MonosemanticityLoss(CodeRegularizer):
    """1 - mean monosemanticity of the latents that are active in the batch (arXiv 2602.12403).

    The mean is over latents that fire on two samples of the batch or more: one that fires once has
    no pair to compare. The batch is that of all ranks. It costs O(B k d_e); weights in the paper
    are .09 to .9. A sample whose embedding is zero does not count.

    Args:
        weight: lambda, the factor of the penalty in the loss.
        embeddings: "input" compares samples by the activations that are encoded, as they come;
            "data" by what the data module reads beside them, `ActivationDataModule(embeddings=)`.
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.

    Raises:
        LightsaeError: If weight is negative or not finite, or embeddings is none of the two.

    Example:
        >>> values, indices = torch.ones(3, 1), torch.tensor([[0], [0], [1]])
        >>> e = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> MonosemanticityLoss(0.1).code_penalty(values, indices, 2, e)
        tensor(0.4000)
    """

    def __init__(
        self,
        weight: float,
        embeddings: Literal["input", "data"] = "input",
        weight_warmup: int = 0,
    ) -> None:
        super().__init__(weight, weight_warmup)
        if embeddings not in ("input", "data"):
            raise LightsaeError(f"embeddings is {embeddings!r}, expected 'input' or 'data'")
        self.embeddings = embeddings

    def chosen_embeddings(self, inputs: Tensor, from_data: Tensor | None) -> Tensor:
        """The inputs, or what the data gives beside them; see `CodeRegularizer`.

        Raises:
            LightsaeError: If the data is to give some and does not.
        """
        if self.embeddings == "input":
            return inputs
        if from_data is None:
            raise LightsaeError(
                "MonosemanticityLoss(embeddings='data') gets none: give the data module "
                "embeddings, a folder of shards of another model over the same samples"
            )
        return from_data

    def code_penalty(
        self,
        values: Tensor,
        indices: Tensor,
        d_sae: int,
        embeddings: Tensor,
        process_group: ProcessGroup | None = None,
    ) -> Tensor:
        """1 - mean MS, at least float32; 0 if no latent fires twice. See `CodeRegularizer`."""
        with torch.autocast(values.device.type, enabled=False):
            scores, scored = _scores(values, indices, d_sae, embeddings, process_group)
            count = scored.sum()
            mean = scores.sum() / count.clamp_min(1)
            loss = torch.where(count > 0, 1 - mean, 0.0)
            return loss.to(torch.promote_types(values.dtype, torch.float32))


def _scores(
    values: Tensor, indices: Tensor, d_sae: int, embeddings: Tensor, group: ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """MS of every latent, 0 where there is none, and which latents have one, [d_sae]."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    unit = F.normalize(embeddings.detach().to(dtype), dim=1, eps=torch.finfo(dtype).tiny)
    latents, order = indices.reshape(-1).sort(stable=True)
    rows = order.div(max(indices.shape[1], 1), rounding_mode="floor")
    embedded = (unit != 0).any(dim=1)
    a = torch.where(embedded[rows], values.reshape(-1)[order].to(dtype), 0.0)
    w = a / _maxima(a, latents, d_sae, group)[latents]
    starts = torch.searchsorted(latents, torch.arange(d_sae, device=latents.device))
    S = F.embedding_bag(rows, unit, starts, mode="sum", per_sample_weights=w)
    # What is left of (sum w)^2 - q may be far smaller than the two.
    exact = w.double()
    sums = torch.stack([exact, exact.square()], dim=1)
    sums = torch.zeros(d_sae, 2, dtype=sums.dtype, device=w.device).index_add(0, latents, sums)
    if group is not None:
        S, sums = _summed(len(values), group, S, sums)
    sum_w, q = sums.unbind(dim=1)
    pairs = sum_w.square() - q
    scored = pairs > _ROUNDINGS * torch.finfo(dtype).eps * sum_w.square()
    scores = (S.double().square().sum(dim=1) - q) / torch.where(scored, pairs, 1.0)
    return torch.where(scored, scores, 0.0), scored


def _maxima(a: Tensor, latents: Tensor, d_sae: int, group: ProcessGroup | None) -> Tensor:
    """Largest activation of each latent in the batch, 1 for a silent one; a constant, [d_sae]."""
    found = a.new_zeros(d_sae).scatter_reduce(0, latents, a.detach(), "amax")
    if group is not None:
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
    return torch.where(found > 0, found, 1.0)


def _summed(rows: int, group: ProcessGroup, *parts: Tensor) -> tuple[Tensor, ...]:
    """Sums over ranks, with gradients as ranks' means have them; see `objective`."""
    total = torch.full((), rows, dtype=torch.float64, device=parts[0].device)
    dist.all_reduce(total, group=group)
    # What is averaged over ranks, by rows, is to be the gradient of the sum over ranks.
    factor = total / max(rows, 1)
    return tuple(_AllReduce.apply(part, factor, group) for part in parts)


class _AllReduce(torch.autograd.Function):
    """Sum over ranks; every rank has the gradient of the same loss."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, factor: Tensor, group: ProcessGroup) -> Tensor:
        """The sum."""
        ctx.save_for_backward(factor)
        total = part.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of this rank's part."""
        (factor,) = ctx.saved_tensors
        return grad * factor.to(grad.dtype), None, None
