"""Sparse decode; or instead of it the residual, and in the same pass the squared error.

    x_hat_i = sum_s values[i, s] W_dec[indices[i, s]] + b_dec
    residual = x - x_hat            error[i, c] = sum over the columns of block c of residual_i^2

An index outside the dictionary counts for nothing and raises the flag, as NaN and inf do.

Shapes: values and indices [B, K], W_dec [N, D], x, x_hat and residual [B, D].
"""

import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.configs import programs


@triton.jit
def sparse_decode_fwd_kernel(
    values_ptr,
    indices_ptr,
    w_ptr,
    bias_ptr,
    x_ptr,
    out_ptr,
    error_ptr,
    flag_ptr,
    B,
    N,
    D,
    K,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """One program: BLOCK_B rows, BLOCK_D columns."""
    row = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    real = row < B
    row = row.to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = real[:, None] & (d < D)[None, :]
    x_hat = tl.zeros((BLOCK_B, BLOCK_D), tl.float32)
    outside = tl.zeros((BLOCK_B,), tl.int32)
    for start in range(0, K, UNROLL):
        # Independent loads, so that UNROLL rows of W_dec are on their way at a time.
        for step in tl.static_range(UNROLL):
            at = row * K + start + step
            here = real & (at < (row + 1) * K)
            latent = tl.load(indices_ptr + at, mask=here, other=0)
            value = tl.load(values_ptr + at, mask=here, other=0.0)
            known = here & (latent >= 0) & (latent < N)
            outside = tl.where((latent < 0) | (latent >= N), 1, outside)
            w_at = w_ptr + latent[:, None] * D + d[None, :]
            w = tl.load(w_at, mask=known[:, None] & (d < D)[None, :], other=0.0)
            x_hat += value.to(tl.float32)[:, None] * w.to(tl.float32)
    if BIAS:
        x_hat += tl.load(bias_ptr + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    at = row[:, None] * D + d[None, :]
    if RESIDUAL:
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        residual = tl.where(inside, x - x_hat, 0.0)
        tl.store(out_ptr + at, residual, mask=inside)
        error_at = error_ptr + row * tl.num_programs(1) + tl.program_id(1)
        seen = tl.sum(residual * residual, axis=1)
        tl.store(error_at, seen, mask=real)
    else:
        rounded = x_hat.to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + at, rounded, mask=inside)
        # NaN if anything is NaN or inf, zero otherwise.
        seen = tl.sum(tl.where(inside, rounded.to(tl.float32) * 0.0, 0.0), axis=1)
    wrong = (outside > 0) | (real & ((seen != seen) | (seen == float("inf"))))
    tl.store(flag_ptr, 1, mask=tl.max(wrong.to(tl.int32)) > 0)


def sparse_decode_fwd(
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None,
    x_hat: Tensor,
    flag: Tensor,
) -> None:
    """Fill `x_hat` [B, D]."""
    _launch(values, indices, W_dec, b_dec, None, x_hat, None, flag)


def sparse_residual_fwd(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None,
    residual: Tensor,
    error: Tensor,
    flag: Tensor,
) -> None:
    """Fill `residual` [B, D] and `error` [B, cdiv(D, block_d(D))], both float32."""
    _launch(values, indices, W_dec, b_dec, x, residual, error, flag)


def _launch(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None,
    x: Tensor | None, out: Tensor, error: Tensor | None, flag: Tensor,
) -> None:  # fmt: skip
    (B, K), (N, D) = values.shape, W_dec.shape
    block = block_d(D)
    rows, warps = programs(block, W_dec.device)
    sparse_decode_fwd_kernel[(triton.cdiv(B, rows), triton.cdiv(D, block))](
        values, indices, W_dec, b_dec, x, out, error, flag, B, N, D, K,
        BIAS=b_dec is not None, RESIDUAL=x is not None,
        BLOCK_B=rows, BLOCK_D=block, UNROLL=4, num_warps=warps,
    )  # fmt: skip


def block_d(D: int) -> int:
    """Columns of a program: a whole row up to 2048.

    Example:
        >>> block_d(384), block_d(8192)
        (512, 2048)
    """
    return min(2048, max(16, int(triton.next_power_of_2(D))))
