"""Gradient of a regularizer in the activations of one member: fused, or dense through autograd."""

import torch
from lightsae_kernels.cpu.encode import evaluate_penalty
from lightsae_kernels.cpu.encode_gradient import regularizer_gradient_
from lightsae_kernels.encode_plan import EncodePlan
from torch import Tensor

from lightsae.sae import Regularizer, TopK
from lightsae.sae.selection import fused_options


def penalty_gradient_(
    a: Tensor,
    indices: Tensor,
    active: Tensor,
    coefficient: Tensor,
    regularizer: Regularizer,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Turn pre-activations into the gradient of penalty and reconstruction in them, in place.

    Args:
        a: Pre-activations, [B, N]; afterwards the gradient.
        indices: Selected latents, [B, k].
        active: Batch-active latents, [N] bool.
        coefficient: Gradient of the reconstruction loss in the selected activations, [B, k].
        regularizer: Any; its weight counts.
        scale: Factor of the penalty's gradient.

    Returns:
        The unweighted penalty, and the column sums of the gradient, [N].
    """
    k = indices.shape[1]
    options = fused_options(TopK(k), regularizer, None)
    if options is None:
        return _through_autograd_(a, indices, active, coefficient, regularizer, scale)
    plan = EncodePlan(k, a.dtype, **options)
    penalty, norms = evaluate_penalty(a, indices, plan.mask(active), plan)
    factor = torch.tensor(scale * regularizer.weight / len(a), dtype=penalty.dtype)
    columns = regularizer_gradient_(a, norms, plan.eps, factor, indices, coefficient)
    return penalty, columns


def _through_autograd_(
    a: Tensor,
    indices: Tensor,
    active: Tensor,
    coefficient: Tensor,
    regularizer: Regularizer,
    scale: float,
) -> tuple[Tensor, Tensor]:
    rectified = a.relu().requires_grad_()
    mask = active if regularizer.batch_active_only else torch.ones_like(active)
    with torch.enable_grad():
        penalty = regularizer.penalty(rectified, indices, mask)
        gradient = None
        if penalty.requires_grad:
            weighted = penalty * (scale * regularizer.weight)
            (gradient,) = torch.autograd.grad(weighted, rectified, allow_unused=True)
    if gradient is None:
        a.zero_()
    else:
        torch.mul(gradient, a > 0, out=a)
    a.scatter_add_(1, indices, coefficient)
    return penalty.detach(), a.sum(dim=0)
