"""Sparse decode; or instead of it the residual, and in the same pass the squared error.

    x_hat_i = sum_s values[i, s] W_dec[indices[i, s]] + b_dec
    residual = x - x_hat            error[i, c] = sum over the columns of block c of residual_i^2
    d_z[i, s] = sum over d of g[i, d] W_dec[indices[i, s], d]        gradient of the values

In mixed precision rows of W_dec are multiplied in the narrow dtype: read from a copy in it, or
rounded on the way, with the same bits. The residual is then also left in that dtype, for the
gradient of W_dec, which gathers its rows.

An index outside the dictionary counts for nothing and raises the flag, as NaN and inf do.

Shapes: values, indices and d_z [B, K], W_dec [N, D], x, x_hat, residual and g [B, D].
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fault_flags import Flag, flag_on, raise_where_nothing_waits
from lightsae_kernels.fused.tile_configs import programs
from lightsae_kernels.types import Decoder, Left

_DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def decode_kernel(
    values_ptr,
    indices_ptr,
    w_ptr,
    bias_ptr,
    x_ptr,
    out_ptr,
    narrow_ptr,
    error_ptr,
    flag_ptr,
    fault_ptr,
    B,
    N,
    D,
    K,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    NARROW: tl.constexpr,
    PRODUCT: tl.constexpr,
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
            x_hat += value.to(tl.float32)[:, None] * w.to(PRODUCT).to(tl.float32)
    if BIAS:
        x_hat += tl.load(bias_ptr + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    at = row[:, None] * D + d[None, :]
    if RESIDUAL:
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        residual = tl.where(inside, x - x_hat, 0.0)
        tl.store(out_ptr + at, residual, mask=inside)
        if NARROW:
            tl.store(narrow_ptr + at, residual.to(PRODUCT), mask=inside)
        error_at = error_ptr + row * tl.num_programs(1) + tl.program_id(1)
        seen = tl.sum(residual * residual, axis=1)
        tl.store(error_at, seen, mask=real)
    else:
        rounded = x_hat.to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + at, rounded, mask=inside)
        # NaN if anything is NaN or inf, zero otherwise.
        seen = tl.sum(tl.where(inside, rounded.to(tl.float32) * 0.0, 0.0), axis=1)
    wrong = (outside > 0) | (real & ((seen != seen) | (seen == float("inf"))))
    raised = tl.max(wrong.to(tl.int32)) > 0
    tl.store(flag_ptr, 1, mask=raised)
    tl.store(fault_ptr, 1, mask=raised)


@triton.jit
def values_gradient_kernel(
    g_ptr, indices_ptr, w_ptr, dz_ptr, N, D, K,
    PRODUCT: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_K latents of a row."""
    row = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    latent = tl.load(indices_ptr + row * K + s, mask=s < K, other=0)
    known = (s < K) & (latent >= 0) & (latent < N)
    total = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        g = tl.load(g_ptr + row * D + d, mask=d < D, other=0.0).to(tl.float32)
        w_at = w_ptr + latent[:, None] * D + d[None, :]
        w = tl.load(w_at, mask=known[:, None] & (d < D)[None, :], other=0.0)
        total += g[None, :] * w.to(PRODUCT).to(tl.float32)
    tl.store(dz_ptr + row * K + s, tl.sum(total, axis=1), mask=s < K)


def decode_forward(values: Tensor, indices: Tensor, decoder: Decoder) -> Tensor:
    """Reconstructions, [B, d_in] in the dtype of W_dec."""
    W_dec = decoder.W
    x_hat = W_dec.new_empty(len(values), W_dec.shape[1])
    decode(values, indices, decoder, x_hat, flag_on(W_dec.device, "sparse_decode"))
    raise_where_nothing_waits(W_dec.device)
    return x_hat


def residual_forward(
    x: Tensor, values: Tensor, indices: Tensor, decoder: Decoder, used: Tensor | None = None
) -> Left:
    """What the reconstructions leave of x and its squared norms, in float32.

    Places that are not used have values of 0: their rows are read and count for nothing.
    """
    B, d_in = x.shape
    residual = torch.empty(B, d_in, dtype=torch.float32, device=x.device)
    narrow = None
    if decoder.dtype.itemsize == 2:
        narrow = torch.empty(B, d_in, dtype=decoder.dtype, device=x.device)
    error = residual.new_empty(B, -(-d_in // block_d(d_in)))
    flag = flag_on(x.device, "sparse_decode")
    decode(values, indices, decoder, residual, flag, x.contiguous(), narrow, error)
    raise_where_nothing_waits(x.device)
    return Left(residual, error.sum(dim=1), narrow)


def decode(
    values: Tensor,
    indices: Tensor,
    decoder: Decoder,
    out: Tensor,
    flag: Flag,
    x: Tensor | None = None,
    narrow: Tensor | None = None,
    error: Tensor | None = None,
) -> None:
    """Fill `out` [B, D] with the reconstructions, or with what they leave of x.

    Args:
        values: [B, K].
        indices: [B, K].
        decoder: Its parameters.
        out: Reconstructions of any dtype, or residuals in float32.
        flag: Raised for NaN, inf and an index outside the dictionary.
        x: Inputs, [B, D].
        narrow: Receives the residuals in the dtype of the product, [B, D].
        error: Receives their squared sums, [B, cdiv(D, block_d(D))] float32.
    """
    W_dec = decoder.weight().contiguous()
    (B, K), (N, D) = values.shape, W_dec.shape
    bias = None if decoder.b is None else decoder.b.contiguous()
    block = block_d(D)
    rows, warps = programs(block, W_dec.device)
    decode_kernel[(triton.cdiv(B, rows), triton.cdiv(D, block))](
        values.contiguous(), indices.contiguous(), W_dec, bias, x, out, narrow, error,
        flag.told, flag.fault, B, N, D, K, BIAS=bias is not None, RESIDUAL=x is not None,
        NARROW=narrow is not None, PRODUCT=_DTYPES[decoder.dtype],
        BLOCK_B=rows, BLOCK_D=block, UNROLL=4, num_warps=warps,
    )  # fmt: skip


def values_gradient(
    g: Tensor, indices: Tensor, decoder: Decoder, used: Tensor | None = None
) -> Tensor:
    """Gradient of the values given that of the reconstructions, [B, K] float32.

    It is made at places that are not used, too: a rule that narrows multiplies it with 0 there.
    """
    W_dec = decoder.weight().contiguous()
    (B, K), (N, D) = indices.shape, W_dec.shape
    d_z = torch.empty(B, K, dtype=torch.float32, device=g.device)
    block_k = min(16, triton.next_power_of_2(K))
    block = min(256, max(16, triton.next_power_of_2(D)))
    values_gradient_kernel[(B, triton.cdiv(K, block_k))](
        g.contiguous(), indices.contiguous(), W_dec, d_z, N, D, K,
        PRODUCT=_DTYPES[decoder.dtype], BLOCK_K=block_k, BLOCK_D=block, num_warps=4,
    )  # fmt: skip
    return d_z


def block_d(D: int) -> int:
    """Columns of a program: a whole row up to 2048.

    Example:
        >>> block_d(384), block_d(8192)
        (512, 2048)
    """
    return min(2048, max(16, int(triton.next_power_of_2(D))))
