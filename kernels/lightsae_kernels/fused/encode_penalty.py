"""Regularizer values and row statistics from stored activations (arXiv 2606.27321).

    l1_i = sum_j mu_j a_ij     squares_i = sum_j mu_j a_ij^2     R_i = l1_i / (sqrt squares_i + eps)
    sums_j = sum_i a_ij                                                                   Reg 1

One pass over kept activations takes the speed of memory, over a row block in L2 less. Values that
are not positive count as 0, so pre-activations will do.

Shapes: a [B, N], mask [N] int8, l1 and squares [B], sums [N], all float32.
"""

import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.tile_configs import programs


@triton.jit
def row_norms_kernel(
    a_ptr, mask_ptr, l1_ptr, squares_ptr, B, N,
    MASKED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_B rows."""
    row = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    a_row = a_ptr + row.to(tl.int64)[:, None] * N
    l1 = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    squares = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, N, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        inside = (row < B)[:, None] & (column < N)[None, :]
        # With the mask on it this load would be two bytes wide.
        a = tl.load(a_row + column[None, :], mask=inside, other=0.0).to(tl.float32)
        counted = a > 0
        if MASKED:
            mask = tl.load(mask_ptr + column, mask=column < N, other=0) != 0
            counted = counted & mask[None, :]
        a = tl.where(counted, a, 0.0)
        l1 += a
        squares += a * a
    tl.store(l1_ptr + row, tl.sum(l1, axis=1), mask=row < B)
    tl.store(squares_ptr + row, tl.sum(squares, axis=1), mask=row < B)


@triton.jit
def column_sums_kernel(a_ptr, sums_ptr, B, N, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr):
    """One program: BLOCK_N columns."""
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, B, BLOCK_B):
        row = start + tl.arange(0, BLOCK_B)
        inside = (row < B)[:, None] & (column < N)[None, :]
        at = row.to(tl.int64)[:, None] * N + column[None, :]
        a = tl.load(a_ptr + at, mask=inside, other=0.0).to(tl.float32)
        total += tl.where(a > 0, a, 0.0)
    tl.store(sums_ptr + column, tl.sum(total, axis=0), mask=column < N)


def row_norms(a: Tensor, mask: Tensor | None, norms: Tensor) -> None:
    """Write l1 and squares, `norms` [2, B], of each row of `a` over the masked columns, or all."""
    B, N = a.shape
    block = min(4096, max(16, triton.next_power_of_2(N)))
    rows, warps = programs(block, a.device, per_warp=512)
    row_norms_kernel[(triton.cdiv(B, rows),)](
        a, mask, norms[0], norms[1], B, N,
        MASKED=mask is not None, BLOCK_B=rows, BLOCK_N=block, num_warps=warps,
    )  # fmt: skip


def column_sums(a: Tensor, sums: Tensor) -> None:
    """Write the sum of each column of `a` [B, N], float32 [N]."""
    B, N = a.shape
    block_n = min(128, max(16, triton.next_power_of_2(N)))
    column_sums_kernel[(triton.cdiv(N, block_n),)](
        a, sums, B, N, BLOCK_B=32, BLOCK_N=block_n, num_warps=4
    )
