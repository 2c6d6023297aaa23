"""Gradient of a fused regularizer in the activations of one member."""

import torch
from lightsae_kernels.cpu.encode import evaluate_penalty
from lightsae_kernels.cpu.encode_gradient import regularizer_gradient_
from lightsae_kernels.encode_plan import EncodePlan
from torch import Tensor

from lightsae.sae import L1L2Ratio, OffSupportL1, Regularizer
from lightsae.sae.selection import fused_options

_SETTINGS = {"weight", "batch_active_only", "eps", "weight_warmup"}


def has_joint_gradient(regularizer: Regularizer | None) -> bool:
    """Whether the batched step knows a regularizer with all its settings.

    Example:
        >>> has_joint_gradient(OffSupportL1(0.1)), has_joint_gradient(None)
        (True, True)
    """
    if regularizer is None:
        return True
    ours = type(regularizer) in (OffSupportL1, L1L2Ratio)
    known = vars(regularizer).keys() <= _SETTINGS
    return ours and known and not regularizer.weight_warmup


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
        regularizer: One that `has_joint_gradient`; its weight counts.
        scale: Factor of the penalty's gradient.

    Returns:
        The unweighted penalty, and the column sums of the gradient, [N].
    """
    options = fused_options(regularizer, None)
    assert options is not None
    plan = EncodePlan(indices.shape[1], a.dtype, **options)
    penalty, norms = evaluate_penalty(a, indices, plan.mask(active), plan)
    factor = torch.tensor(scale * regularizer.weight / len(a), dtype=penalty.dtype)
    return penalty, regularizer_gradient_(a, norms, plan.eps, factor, indices, coefficient)
