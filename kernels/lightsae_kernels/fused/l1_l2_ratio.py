"""Reg 2: l1 norm and squared l2 norm of each row over the masked latents (arXiv 2606.27321).

    l1_i = sum_j mu_j a_ij     squares_i = sum_j mu_j a_ij^2     R_i = l1_i / (sqrt squares_i + eps)

One pass over kept activations at the speed of memory; without them the product takes both sums.

Shapes: a [B, N], mask [N] int8, l1 and squares [B] float32.
"""

import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.configs import programs


@triton.jit
def l1_l2_ratio_fwd_kernel(
    a_ptr, mask_ptr, l1_ptr, squares_ptr, B, N, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr
):
    """One program: BLOCK_B rows."""
    row = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    a_row = a_ptr + row.to(tl.int64)[:, None] * N
    l1 = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    squares = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, N, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        mask = tl.load(mask_ptr + column, mask=column < N, other=0) != 0
        counted = (row < B)[:, None] & mask[None, :]
        a = tl.load(a_row + column[None, :], mask=counted, other=0.0).to(tl.float32)
        l1 += a
        squares += a * a
    tl.store(l1_ptr + row, tl.sum(l1, axis=1), mask=row < B)
    tl.store(squares_ptr + row, tl.sum(squares, axis=1), mask=row < B)


def l1_l2_ratio_fwd(a: Tensor, mask: Tensor, l1: Tensor, squares: Tensor) -> None:
    """Write both sums of each row of `a` over the masked columns."""
    B, N = a.shape
    block = min(4096, max(16, triton.next_power_of_2(N)))
    rows, warps = programs(block, a.device, per_warp=512)
    l1_l2_ratio_fwd_kernel[(triton.cdiv(B, rows),)](
        a, mask, l1, squares, B, N, BLOCK_B=rows, BLOCK_N=block, num_warps=warps
    )
