"""Gradient of a regularizer in W_enc and b_enc: a product whose left operand never exists.

    g[i, j] = mu_j [a_ij > 0] (alpha_i - beta_i a_ij)        Reg 1: alpha = 1, beta = 0
    dW_enc = scale g^T x          d_b_enc = scale (column sums of g)        (arXiv 2606.27321)

    Reg 2: alpha = 1 / (l2 + eps), beta = l1 / (l2 (l2 + eps)^2)

g is made in registers from `a`. Tiles of latents of which none is in the mask are skipped. The
scale is left out of g, which would underflow in two bytes.

Shapes: a [B, N], x [B, D], alpha and beta [B], dW_enc [N, D] float32; B rows of one block.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.configs import ProductConfig


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
    counted = column < N
    rows = B
    if MASKED:
        counted = counted & (tl.load(mask_ptr + column, mask=column < N, other=0) != 0)
        rows = tl.where(tl.max(counted.to(tl.int32), axis=0) > 0, B, 0)
    accumulator = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    sums = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, rows, BLOCK_B):
        row = start + tl.arange(0, BLOCK_B)
        a_at = a_ptr + row.to(tl.int64)[None, :] * N + column[:, None]
        a = tl.load(a_at, mask=counted[:, None] & (row < B)[None, :], other=0.0)
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
    scale = tl.load(scale_ptr)
    dw_at = dw_ptr + column.to(tl.int64)[:, None] * D + d[None, :]
    inside = (column < N)[:, None] & (d < D)[None, :]
    dw = scale * accumulator
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
    config: ProductConfig,
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
        config: Tiles: block_b latents, block_n columns, block_d rows of a step.
        accumulate: Add to what `d_W` and `d_b` hold.
    """
    (B, N), D = a.shape, x.shape[1]
    alpha, beta = (None, None) if coefficients is None else coefficients
    tf32 = x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    grid = (triton.cdiv(N, config.block_b) * triton.cdiv(D, config.block_n),)
    encode_gradient_kernel[grid](
        a, x, mask, alpha, beta, scale, d_W, d_b, B, N, D,
        MASKED=mask is not None, RATIO=alpha is not None, ACCUMULATE=accumulate,
        PRECISION="tf32" if tf32 else "ieee", BLOCK_N=config.block_b, BLOCK_D=config.block_n,
        BLOCK_B=config.block_d, num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
