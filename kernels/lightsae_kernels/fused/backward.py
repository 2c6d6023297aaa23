"""Gradients of the fused operations: sparse where Top-k made them sparse, one product otherwise.

Nothing of the size B x d_sae is made beside the activations that the forward pass kept, or a row
block of them that is made once more.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightsae_kernels.fused.configs import gradient_config
from lightsae_kernels.fused.decode import sparse_decode_fwd
from lightsae_kernels.fused.encode_gradient import encode_gradient_bwd
from lightsae_kernels.fused.forward import Encoding, Plan, Product, at_support, blocks, first_of_row
from lightsae_kernels.fused.order import LatentOrder
from lightsae_kernels.fused.weight_gradient import DecoderPairs, EncoderPairs, weight_gradient_bwd
from lightsae_kernels.memory import rows_in_block
from lightsae_kernels.reference import norm_ratio_gradient
from lightsae_kernels.shared import narrow


class EncoderGradients(NamedTuple):
    """Gradients of an encoding, in float32.

    Attributes:
        x: [B, d_in], or None if nobody asked.
        W_enc: [d_sae, d_in].
        b_enc: [d_sae].
    """

    x: Tensor | None
    W_enc: Tensor
    b_enc: Tensor


class Operands(NamedTuple):
    """What was multiplied.

    Attributes:
        x: Centred inputs in the dtype of the product, [B, d_in].
        W_enc: [d_sae, d_in].
        b_enc: [d_sae].
        dtype: Of the product.
    """

    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    dtype: torch.dtype

    def row_blocks(self, kept: Tensor | None) -> Iterable[tuple[slice, Tensor]]:
        """The activations block by block: those kept, or made once more."""
        return Product.of(*self).row_blocks() if kept is None else [(slice(0, len(kept)), kept)]


def encode_topk_bwd(
    operands: Operands,
    found: Encoding,
    plan: Plan,
    order: LatentOrder,
    d_values: Tensor | None,
    d_penalty: Tensor | None,
    *,
    of_x: bool,
    decoder: DecoderPairs | None = None,
) -> EncoderGradients:
    """Gradients of the encoder at the selected support and mask; the decoder's in the same pass."""
    x, (N, D) = operands.x, operands.W_enc.shape
    positive = found.values > 0
    float32: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    d_z = torch.zeros(positive.shape, **float32) if d_values is None else d_values.float()
    of_pairs = d_z = (d_z * positive).contiguous()
    d_W, d_b = (torch.empty(shape, **float32) for shape in ((N, D), (N,)))
    d_x = torch.zeros(x.shape, **float32) if of_x else None
    regularized = plan.regularizer is not None and d_penalty is not None and len(x) > 0
    if regularized:
        assert d_penalty is not None
        scale = (d_penalty.float() / len(x)).reshape(1)
        mask = found.active if plan.batch_active_only else None
        if plan.regularizer == "off_support_l1":
            # The dense pass counts what was selected, which is not off the support: take it back.
            counted = positive if plan.indices is None else positive & first_of_row(found.indices)
            counted = counted if mask is None else counted & at_support(mask, found.indices)
            of_pairs = d_z - scale * counted
        _regularizer_gradient(operands, found, plan, mask, scale, d_W, d_b, d_x)
    pairs = EncoderPairs(of_pairs.contiguous(), x, d_W, d_b, accumulate=regularized)
    weight_gradient_bwd(order, pairs, decoder)
    if d_x is not None:
        sparse = torch.empty(x.shape, **float32)
        unwatched = torch.zeros(1, dtype=torch.int32, device=x.device)
        weight = operands.W_enc.contiguous()
        sparse_decode_fwd(d_z, found.indices, weight, None, sparse, unwatched)
        d_x += sparse
    return EncoderGradients(d_x, d_W, d_b)


def _regularizer_gradient(
    operands: Operands, found: Encoding, plan: Plan, mask: Tensor | None, scale: Tensor,
    d_W: Tensor, d_b: Tensor, d_x: Tensor | None,
) -> None:  # fmt: skip
    """The dense part, block by block; adds to d_x."""
    coefficients = None
    if found.l1 is not None and found.l2 is not None:
        coefficients = norm_ratio_gradient(found.l1, found.l2, plan.eps)
        if operands.dtype == torch.float16:
            coefficients, scale = _within_float16(found.l1, coefficients, scale)
    narrow_mask = None if mask is None else mask.to(torch.int8)
    x = operands.x
    config = gradient_config(x.device, x.dtype, x.shape[1])
    for block, a in operands.row_blocks(found.kept):
        rows = None if coefficients is None else (coefficients[0][block], coefficients[1][block])
        encode_gradient_bwd(
            a, x[block], narrow_mask, rows, scale, d_W, d_b, config,
            accumulate=block.start > 0,
        )  # fmt: skip
        if d_x is not None:
            _through_rows(operands, found, mask, coefficients, scale, block, a, d_x)


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
    operands: Operands, found: Encoding, mask: Tensor | None,
    coefficients: tuple[Tensor, Tensor] | None, scale: Tensor, block: slice, a: Tensor, d_x: Tensor,
) -> None:  # fmt: skip
    """Add the gradient of x through the activations of a block, a few rows at a time."""
    W_enc = narrow(operands.W_enc, a.dtype)
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
