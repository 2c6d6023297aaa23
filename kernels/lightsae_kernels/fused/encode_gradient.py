"""Gradient of the fused encoder: sparse where Top-k made it so, one product for a regularizer.

    g[i, j] = mu_j [a_ij > 0] (alpha_i - beta_i a_ij)        Reg 1: alpha = 1, beta = 0
    dW_enc = scale g^T x          d_b_enc = scale (column sums of g)        (arXiv 2606.27321)

    Reg 2: alpha = 1 / (l2 + eps), beta = l1 / (l2 (l2 + eps)^2)

The left operand g never exists: it is made in registers from activations that the forward pass kept
or a row block of them made once more. The mask is of whole rows of the result and is applied to
those: on the loads of `a` it would make them two bytes wide. Tiles of latents of which none is in
the mask are skipped. The scale is left out of g, which would underflow in two bytes.

Shapes: a [B, N], x [B, D], alpha and beta [B], dW_enc [N, D] float32.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.fault_flags import unwatched
from lightsae_kernels.fused.decode import decode
from lightsae_kernels.fused.encode import Product, at_support, blocks, first_of_row
from lightsae_kernels.fused.latent_sort import LatentOrder
from lightsae_kernels.fused.tile_configs import gradient_config
from lightsae_kernels.fused.weight_gradients import EncoderPairs, weight_gradients
from lightsae_kernels.memory import rows_in_block
from lightsae_kernels.reference import norm_ratio_gradient
from lightsae_kernels.types import Decoder, DecoderPairs, EncodeGradients, Encoder, Encoding


@triton.jit
def encode_gradient_kernel(
    a_ptr,
    x_ptr,
    mask_ptr,
    alpha_ptr,
    beta_ptr,
    scale_ptr,
    dw_ptr,
    db_ptr,
    B,
    N,
    D,
    MASKED: tl.constexpr,
    RATIO: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """One program: BLOCK_N latents, BLOCK_D columns."""
    blocks_d = tl.cdiv(D, BLOCK_D)
    block_d = tl.program_id(0) % blocks_d
    column = (tl.program_id(0) // blocks_d) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = block_d * BLOCK_D + tl.arange(0, BLOCK_D)
    rows = B
    if MASKED:
        counted = tl.load(mask_ptr + column, mask=column < N, other=0) != 0
        rows = tl.where(tl.max(counted.to(tl.int32), axis=0) > 0, B, 0)
    accumulator = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    sums = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, rows, BLOCK_B):
        row = start + tl.arange(0, BLOCK_B)
        a_at = a_ptr + row.to(tl.int64)[None, :] * N + column[:, None]
        a = tl.load(a_at, mask=(column < N)[:, None] & (row < B)[None, :], other=0.0)
        if RATIO:
            alpha = tl.load(alpha_ptr + row, mask=row < B, other=0.0)
            beta = tl.load(beta_ptr + row, mask=row < B, other=0.0)
            g = tl.where(a > 0, alpha[None, :] - beta[None, :] * a.to(tl.float32), 0.0)
        else:
            g = tl.where(a > 0, 1.0, 0.0)
        if block_d == 0:
            sums += tl.sum(g, axis=1)
        x_at = x_ptr + row.to(tl.int64)[:, None] * D + d[None, :]
        x = tl.load(x_at, mask=(row < B)[:, None] & (d < D)[None, :], other=0.0)
        accumulator = tl.dot(g.to(x.dtype), x, accumulator, input_precision=PRECISION)
    # Of each latent: what is not in the mask is finite, and counts for nothing.
    scale = tl.load(scale_ptr) + tl.zeros((BLOCK_N,), tl.float32)
    dw_at = dw_ptr + column.to(tl.int64)[:, None] * D + d[None, :]
    inside = (column < N)[:, None] & (d < D)[None, :]
    if MASKED:
        scale = tl.where(counted, scale, 0.0)
    dw = scale[:, None] * accumulator
    if ACCUMULATE:
        dw += tl.load(dw_at, mask=inside, other=0.0)
    tl.store(dw_at, dw, mask=inside)
    if block_d == 0:
        db = scale * sums
        if ACCUMULATE:
            db += tl.load(db_ptr + column, mask=column < N, other=0.0)
        tl.store(db_ptr + column, db, mask=column < N)


def encode_gradient(
    a: Tensor,
    x: Tensor,
    mask: Tensor | None,
    coefficients: tuple[Tensor, Tensor] | None,
    scale: Tensor,
    d_W: Tensor,
    d_b: Tensor,
    *,
    accumulate: bool,
) -> None:
    """Fill, or add to, `d_W` [N, D] and `d_b` [N] from a row block.

    Args:
        a: Activations, [B, N].
        x: Centred inputs, [B, D], dtype of `a`.
        mask: Latents that count, [N] int8; None is all of them.
        coefficients: alpha and beta of Reg 2, [B] float32; None is Reg 1.
        scale: Gradient of the penalty over the batch size, [1] float32.
        d_W: Gradient of W_enc, float32.
        d_b: Gradient of b_enc, float32.
        accumulate: Add to what `d_W` and `d_b` hold.
    """
    (B, N), D = a.shape, x.shape[1]
    config = gradient_config(x.device, x.dtype, D, accumulate=accumulate)
    alpha, beta = (None, None) if coefficients is None else coefficients
    tf32 = x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    grid = (triton.cdiv(N, config.block_b) * triton.cdiv(D, config.block_n),)
    encode_gradient_kernel[grid](
        a, x, mask, alpha, beta, scale, d_W, d_b, B, N, D,
        MASKED=mask is not None, RATIO=alpha is not None, ACCUMULATE=accumulate,
        PRECISION="tf32" if tf32 else "ieee", BLOCK_N=config.block_b, BLOCK_D=config.block_n,
        BLOCK_B=config.block_d, num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def encode_backward(
    x: Tensor, encoder: Encoder, found: Encoding, plan: EncodePlan,
    order: Callable[[], LatentOrder], d_values: Tensor | None, d_penalty: Tensor | None,
    needed: Sequence[bool], pairs: DecoderPairs | None = None,
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
        pairs: What the gradient of W_dec is made of.
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
    own = EncoderPairs(of_pairs.contiguous(), x, d_W, d_b, accumulate=regularized)
    d_W_dec = weight_gradients(order(), own, pairs)
    if d_x is not None:
        sparse = torch.empty(x.shape, **float32)
        rows = Decoder(encoder.W, None, encoder.W.dtype)
        decode(d_z, found.indices, rows, sparse, unwatched(x.device))
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
    for block, a in _activations(x, encoder, plan, found.kept):
        rows = None if coefficients is None else (coefficients[0][block], coefficients[1][block])
        encode_gradient(
            a, x[block], narrow_mask, rows, scale, d_W, d_b, accumulate=block.start > 0
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
