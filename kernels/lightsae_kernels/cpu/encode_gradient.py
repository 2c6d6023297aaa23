"""Gradient of the encoder: sparse where Top-k made it so, one product where a regularizer asks.

    Reg 1: dR/da_j = 1 for a_j > 0, j in mu, j not in S        (arXiv 2606.27321)
    Reg 2: dR/da_j = alpha - beta a_j for a_j > 0, j in mu, alpha = 1/(l2 + eps),
           beta = l1 / (l2 (l2 + eps)^2)

It is made in place of the activations. The Top-k gradient is added at the support, so one product
gives the whole gradient of W_enc.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels import reference
from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.encode import (
    PASS_BYTES,
    evaluate_penalty,
    product_and_select,
    row_blocks,
)
from lightsae_kernels.cpu.weight_gradients import (
    LatentOrder,
    decoder_gradient,
    latent_sums,
    weight_gradient,
)
from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.types import DecoderPairs, EncodeGradients, Encoder, Encoding


def encode_backward(
    x: Tensor, encoder: Encoder, found: Encoding, plan: EncodePlan,
    order: Callable[[], LatentOrder], d_values: Tensor | None, d_penalty: Tensor | None,
    needed: Sequence[bool], pairs: DecoderPairs | None = None,
) -> EncodeGradients:  # fmt: skip
    """Gradients of centred inputs, W_enc, b_enc and, from its pairs, W_dec; uses up what was kept.

    Args:
        x: Centred inputs, [B, d_in].
        encoder: Its parameters.
        found: What the forward pass left; activations that are not there are made once more.
        plan: What was asked for.
        order: Makes the order of the pairs.
        d_values: Gradient of the values, [B, k].
        d_penalty: Gradient of the penalty.
        needed: Whether the gradients of x, W_enc, b_enc and b_dec are asked for.
        pairs: What the gradient of W_dec is made of.
    """
    values, indices = found.values, found.indices
    coefficient = torch.zeros_like(values) if d_values is None else d_values * (values > 0)
    if plan.regularizer is None or d_penalty is None:
        d_x, d_W, d_b = _sparse(x, encoder, indices, coefficient, order, needed, found.used)
    else:
        a, norms = found.kept, found.norms
        if a is None:
            given = replace(plan, k=indices.shape[1], indices=indices)
            _, _, a = product_and_select(x, encoder, given)
            _, norms = evaluate_penalty(a, indices, plan.mask(found.active), plan)
        assert a is not None
        scale = d_penalty / max(len(a), 1)
        d_b = regularizer_gradient_(a, norms, plan.eps, scale, indices, coefficient)
        d_x, d_W = _dense(a, x, encoder, plan.dtype, needed)
        workspace.give(a)
    d_W_dec = None if pairs is None else decoder_gradient(order(), pairs)
    return EncodeGradients(d_x, d_W, d_b.to(encoder.W.dtype), d_W_dec)


def regularizer_gradient_(
    a: Tensor, norms: Tensor | None, eps: float, scale: Tensor, indices: Tensor, coefficient: Tensor
) -> Tensor:
    """Turn activations into their gradient, in place; returns its column sums."""
    wide = torch.promote_types(a.dtype, torch.float32)
    columns = torch.zeros(a.shape[1], dtype=wide)
    # The coefficients of a row of small activations leave the range of float16.
    inner = wide if a.dtype == torch.float16 else a.dtype
    if norms is not None:
        alpha, beta = (
            (factor * scale).to(inner).unsqueeze(1)
            for factor in reference.norm_ratio_gradient(norms[0], norms[1], eps)
        )
    for block in row_blocks(len(a), a.shape[1] * a.element_size(), PASS_BYTES):
        g = a[block].to(inner)
        if norms is None:
            g.sign_().mul_(scale.to(inner))
        else:
            positive = g.sign()
            g.mul_(-beta[block]).addcmul_(positive, alpha[block])
        g.scatter_add_(1, indices[block], coefficient[block].to(inner))
        columns += g.sum(dim=0, dtype=wide)
        if inner != a.dtype:
            a[block] = g
    return columns


def _dense(
    g: Tensor, x: Tensor, encoder: Encoder, dtype: torch.dtype, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and W_enc, given that of the activations."""
    d_W = torch.mm(g.t(), x.to(dtype)).to(encoder.W.dtype) if needed[1] else None
    d_x = torch.mm(g, encoder.weight(dtype)).to(x.dtype) if needed[0] else None
    return d_x, d_W


def _sparse(
    x: Tensor, encoder: Encoder, indices: Tensor, coefficient: Tensor,
    order: Callable[[], LatentOrder], needed: Sequence[bool], used: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor]:  # fmt: skip
    """Gradients of x, W_enc and b_enc where only the support counts."""
    W = encoder.W
    coefficient = coefficient.to(W.dtype)
    d_x = d_W = None
    if needed[0]:
        d_x = F.embedding_bag(indices, W, mode="sum", per_sample_weights=coefficient)
    if needed[1]:
        d_W = weight_gradient(order(), coefficient, x)
    return d_x, d_W, latent_sums(indices, coefficient, len(W), used)
