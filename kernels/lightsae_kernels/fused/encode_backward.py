"""Gradients of the fused encoder: sparse where Top-k made them so, one product otherwise.

Nothing of the size B x d_sae is made beside the activations that the forward pass kept, or a row
block of them that is made once more.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightsae_kernels.fused.configs import gradient_config
from lightsae_kernels.fused.decode import decode
from lightsae_kernels.fused.encode import Product, at_support, blocks, first_of_row
from lightsae_kernels.fused.encode_gradient import encode_gradient
from lightsae_kernels.fused.weights import EncoderPairs, weight_gradients
from lightsae_kernels.fused.weights_order import LatentOrder
from lightsae_kernels.memory import rows_in_block
from lightsae_kernels.plan import EncodePlan
from lightsae_kernels.reference import norm_ratio_gradient
from lightsae_kernels.types import DecoderPairs, EncodeGradients, Encoder, Encoding


def encode_backward(
    x: Tensor, encoder: Encoder, found: Encoding, plan: EncodePlan,
    order: Callable[[], LatentOrder], d_values: Tensor | None, d_penalty: Tensor | None,
    needed: Sequence[bool], decoder: DecoderPairs | None = None,
) -> EncodeGradients:  # fmt: skip
    """Gradients of centred inputs, W_enc, b_enc and, in the same pass, of W_dec; in float32.

    Args:
        x: Centred inputs in the dtype of the product, [B, D].
        encoder: Its parameters.
        found: What the forward pass left; activations that are not there are made once more.
        plan: What was asked for.
        order: Makes the order of the pairs.
        d_values: Gradient of the values, [B, K].
        d_penalty: Gradient of the penalty.
        needed: Whether the gradients of x, W_enc, b_enc and b_dec are asked for.
        decoder: Pairs of the gradient of W_dec.
    """
    N, D = encoder.W.shape
    positive = found.values > 0
    float32: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    d_z = torch.zeros(positive.shape, **float32) if d_values is None else d_values.float()
    of_pairs = d_z = (d_z * positive).contiguous()
    d_W, d_b = (torch.empty(shape, **float32) for shape in ((N, D), (N,)))
    d_x = torch.zeros(x.shape, **float32) if needed[0] else None
    regularized = plan.regularizer is not None and d_penalty is not None and len(x) > 0
    if regularized:
        assert d_penalty is not None
        scale = (d_penalty.float() / len(x)).reshape(1)
        mask = plan.mask(found.active)
        if plan.regularizer == "off_support_l1":
            # The dense pass counts what was selected, which is not off the support: take it back.
            counted = positive if plan.indices is None else positive & first_of_row(found.indices)
            counted = counted if mask is None else counted & at_support(mask, found.indices)
            of_pairs = d_z - scale * counted
        _regularizer_gradient(x, encoder, found, plan, mask, scale, d_W, d_b, d_x)
    pairs = EncoderPairs(of_pairs.contiguous(), x, d_W, d_b, accumulate=regularized)
    d_W_dec = weight_gradients(order(), pairs, decoder)
    if d_x is not None:
        sparse = torch.empty(x.shape, **float32)
        unwatched = torch.zeros(1, dtype=torch.int32, device=x.device)
        decode(d_z, found.indices, encoder.W.contiguous(), None, sparse, unwatched)
        d_x += sparse
    return EncodeGradients(d_x, d_W, d_b, d_W_dec)


def _regularizer_gradient(
    x: Tensor, encoder: Encoder, found: Encoding, plan: EncodePlan, mask: Tensor | None,
    scale: Tensor, d_W: Tensor, d_b: Tensor, d_x: Tensor | None,
) -> None:  # fmt: skip
    """The dense part, block by block; adds to d_x."""
    coefficients = None
    if found.norms is not None:
        l1, l2 = found.norms
        coefficients = norm_ratio_gradient(l1, l2, plan.eps)
        if plan.dtype == torch.float16:
            coefficients, scale = _within_float16(l1, coefficients, scale)
    narrow_mask = None if mask is None else mask.to(torch.int8)
    config = gradient_config(x.device, x.dtype, x.shape[1])
    for block, a in _activations(x, encoder, plan, found.kept):
        rows = None if coefficients is None else (coefficients[0][block], coefficients[1][block])
        encode_gradient(
            a, x[block], narrow_mask, rows, scale, d_W, d_b, config,
            accumulate=block.start > 0,
        )  # fmt: skip
        if d_x is not None:
            _through_rows(encoder, found, mask, coefficients, scale, block, a, d_x)


def _activations(
    x: Tensor, encoder: Encoder, plan: EncodePlan, kept: Tensor | None
) -> Iterable[tuple[slice, Tensor]]:
    """The activations block by block: those kept, or made once more."""
    if kept is not None:
        return [(slice(0, len(kept)), kept)]
    return Product.of(x, encoder, plan.dtype).row_blocks()


def _within_float16(
    l1: Tensor, coefficients: tuple[Tensor, Tensor], scale: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Coefficients over a power of two, scale times it: |g| <= alpha max(1, R_i) stays in range.

    Rows of which all activations are tiny have an alpha beyond the largest float16.
    """
    alpha, beta = coefficients
    largest = (alpha * (l1 * alpha).clamp_min(1.0)).amax()
    unit = (largest / 2**15).log2().ceil().exp2().clamp_min(1.0)
    return (alpha / unit, beta / unit), scale * unit


def _through_rows(
    encoder: Encoder, found: Encoding, mask: Tensor | None,
    coefficients: tuple[Tensor, Tensor] | None, scale: Tensor, block: slice, a: Tensor, d_x: Tensor,
) -> None:  # fmt: skip
    """Add the gradient of x through the activations of a block, a few rows at a time."""
    W_enc = encoder.weight(a.dtype)
    rows = rows_in_block(len(a), a.shape[1], 4, 1)
    for part in blocks(len(a), rows):
        here = slice(block.start + part.start, block.start + part.stop)
        g = (a[part] > 0).float()
        if coefficients is not None:
            alpha, beta = (c[here][:, None] for c in coefficients)
            g *= alpha - beta * a[part].float()
        if mask is not None:
            g *= mask
        if coefficients is None:
            g.scatter_(1, found.indices[here].clamp(0, g.shape[1] - 1), 0.0)
        d_x[here] += scale * (g.to(a.dtype) @ W_enc).float()
