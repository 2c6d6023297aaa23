"""Activations at a given support, instead of a selected one.

    values[i, s] = a[i, indices[i, s]]

An index outside the dictionary reads nothing and raises the flag, as an infinite value does.

Shapes: a [B, N], values and indices [B, K], active [N] int8.
"""

import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.configs import programs


@triton.jit
def support_fwd_kernel(
    a_ptr, values_ptr, indices_ptr, active_ptr, flag_ptr, B, N, K,
    BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_B rows."""
    row = (tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B))[:, None]
    s = tl.arange(0, BLOCK_K)[None, :]
    here = (row < B) & (s < K)
    at = row.to(tl.int64) * K + s
    index = tl.load(indices_ptr + at, mask=here, other=0)
    known = here & (index >= 0) & (index < N)
    value = tl.load(a_ptr + row.to(tl.int64) * N + index, mask=known, other=0.0)
    tl.store(values_ptr + at, value, mask=here)
    tl.store(active_ptr + index, tl.full(here.shape, 1, tl.int8), mask=known)
    wrong = (here & (index >= N)) | (index < 0) | (value.to(tl.float32) == float("inf"))
    tl.store(flag_ptr, 1, mask=tl.max(wrong.to(tl.int32)) > 0)


def support_fwd(a: Tensor, values: Tensor, indices: Tensor, active: Tensor, flag: Tensor) -> None:
    """Fill `values` [B, k] from `a` at `indices`, and mark the latents in `active`."""
    (B, N), K = a.shape, values.shape[1]
    block_k = triton.next_power_of_2(K)
    rows, warps = programs(block_k, a.device)
    support_fwd_kernel[(triton.cdiv(B, rows),)](
        a, values, indices, active, flag, B, N, K, BLOCK_B=rows, BLOCK_K=block_k, num_warps=warps
    )
