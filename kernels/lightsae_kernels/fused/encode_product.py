"""Encoder product kernel; group maxima, mask and penalty are taken from each tile in registers.

    a = ReLU(x W_enc^T + b_enc)           x is already centred, x - b_dec
    maxima[i, m] = max of a[i, m GROUP : (m + 1) GROUP]        the bound that selection starts from
    sums[r, j] = sum of a[i, j] over the rows i of tile row r           Reg 1 (arXiv 2606.27321)
    norms[i, 0, c] = sum of mu_j a[i, j] over the columns j of tile column c, norms[i, 1, c] of
    their squares                                                       Reg 2 (arXiv 2606.27321)

All are of the values as stored, so they agree with what is selected later. NaN and -inf are stored
as inf: the largest of its row is selected, and is seen there at no cost here.

Shapes: x [B, D], W_enc [N, D], a [B, N], maxima [B, M], M >= cdiv(N, GROUP); B rows of one block.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.select import rectified
from lightsae_kernels.fused.tile_configs import ProductConfig


@triton.jit
def tile_of(B, N, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, SUPER: tl.constexpr):
    """Tile row and tile column of this program.

    SUPER tile rows visit the same rows of W_enc one after the other, so they are read from L2.
    """
    pid = tl.program_id(0)
    blocks_b, blocks_n = tl.cdiv(B, BLOCK_B), tl.cdiv(N, BLOCK_N)
    band = SUPER * blocks_n
    first = (pid // band) * SUPER
    height = tl.minimum(blocks_b - first, SUPER)
    return first + (pid % band) % height, (pid % band) // height


@triton.jit
def product_tile(
    x_ptr, w_ptr, row, column, B, N, D,
    BLOCK_D: tl.constexpr, WHOLE_D: tl.constexpr,
):  # fmt: skip
    """X W_enc^T at some rows and columns, in float32."""
    x_row = x_ptr + row.to(tl.int64)[:, None] * D
    w_row = w_ptr + column.to(tl.int64)[None, :] * D
    accumulator = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        if WHOLE_D:
            x = tl.load(x_row + d[None, :], mask=(row < B)[:, None], other=0.0)
            w = tl.load(w_row + d[:, None], mask=(column < N)[None, :], other=0.0)
        else:
            within = d < D
            x = tl.load(x_row + d[None, :], mask=(row < B)[:, None] & within[None, :], other=0.0)
            w = tl.load(w_row + d[:, None], mask=(column < N)[None, :] & within[:, None], other=0.0)
        accumulator = tl.dot(x, w, accumulator, input_precision="ieee")
    return accumulator


@triton.jit
def encode_product_kernel(
    x_ptr,
    w_ptr,
    bias_ptr,
    a_ptr,
    maxima_ptr,
    sums_ptr,
    norms_ptr,
    mask_ptr,
    B,
    N,
    D,
    M,
    GROUP: tl.constexpr,
    STORE: tl.constexpr,
    MAXIMA: tl.constexpr,
    SUMS: tl.constexpr,
    NORMS: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WHOLE_D: tl.constexpr,
    SUPER: tl.constexpr,
):
    """One program: a tile of BLOCK_B rows and BLOCK_N latents."""
    block_b, block_n = tile_of(B, N, BLOCK_B, BLOCK_N, SUPER)
    blocks_n = tl.cdiv(N, BLOCK_N)
    row = block_b * BLOCK_B + tl.arange(0, BLOCK_B)
    column = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    product = product_tile(x_ptr, w_ptr, row, column, B, N, D, BLOCK_D, WHOLE_D)
    bias = tl.load(bias_ptr + column, mask=column < N, other=0.0).to(tl.float32)
    z = product + bias[None, :]
    inside = (row < B)[:, None] & (column < N)[None, :]
    a = tl.where(inside, rectified(z), 0.0).to(x_ptr.dtype.element_ty)  # [BLOCK_B, BLOCK_N]
    if STORE:
        tl.store(a_ptr + row.to(tl.int64)[:, None] * N + column[None, :], a, mask=inside)
    if MAXIMA:
        group = block_n * (BLOCK_N // GROUP) + tl.arange(0, BLOCK_N // GROUP)
        tile = tl.reshape(a.to(tl.float32), (BLOCK_B, BLOCK_N // GROUP, GROUP))
        maxima_at = maxima_ptr + row.to(tl.int64)[:, None] * M + group[None, :]
        maxima = tl.max(tile, axis=2).to(maxima_ptr.dtype.element_ty)
        tl.store(maxima_at, maxima, mask=(row < B)[:, None] & (group < M)[None, :])
    if SUMS:
        total = tl.sum(a.to(tl.float32), axis=0)
        tl.store(sums_ptr + block_b.to(tl.int64) * N + column, total, mask=column < N)
    if NORMS:
        masked = a.to(tl.float32)
        if MASKED:
            mask = tl.load(mask_ptr + column, mask=column < N, other=0)
            masked = tl.where((mask != 0)[None, :], masked, 0.0)
        norms_at = norms_ptr + row.to(tl.int64) * (2 * blocks_n) + block_n
        tl.store(norms_at, tl.sum(masked, axis=1), mask=row < B)
        tl.store(norms_at + blocks_n, tl.sum(masked * masked, axis=1), mask=row < B)


class Taken(NamedTuple):
    """What an encoder product leaves behind; None is not taken.

    Attributes:
        a: Activations, [B, N].
        maxima: Maxima of groups of `group` columns, [B, M], dtype of x; M is at least
            cdiv(N, group), and what lies behind is left alone or zero.
        sums: Column sums of each tile row, [cdiv(B, block_b), N] float32.
        norms: Sums and sums of squares of each tile column, [B, 2, cdiv(N, block_n)] float32.
        mask: Latents that count in `norms`, [N] int8; None is all of them.
        group: Columns of a group, a power of two up to block_n.
    """

    a: Tensor | None = None
    maxima: Tensor | None = None
    sums: Tensor | None = None
    norms: Tensor | None = None
    mask: Tensor | None = None
    group: int = 1


def encode_product(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, taken: Taken, config: ProductConfig
) -> None:
    """Run the product and fill what is taken; `configs` has the other way to multiply.

    Args:
        x: Centred inputs, [B, D], contiguous.
        W_enc: Encoder, [N, D], contiguous, of x's dtype.
        b_enc: Bias, [N].
        taken: Tensors to fill.
        config: Tile sizes.
    """
    (B, D), N = x.shape, len(W_enc)
    grid = (triton.cdiv(B, config.block_b) * triton.cdiv(N, config.block_n),)
    encode_product_kernel[grid](
        x, W_enc, b_enc, taken.a, taken.maxima, taken.sums, taken.norms, taken.mask,
        B, N, D, 0 if taken.maxima is None else taken.maxima.shape[1],
        GROUP=taken.group, STORE=taken.a is not None, MAXIMA=taken.maxima is not None,
        SUMS=taken.sums is not None, NORMS=taken.norms is not None,
        MASKED=taken.mask is not None,
        BLOCK_B=config.block_b, BLOCK_N=config.block_n, BLOCK_D=config.block_d,
        WHOLE_D=D % config.block_d == 0, SUPER=config.super_rows,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
