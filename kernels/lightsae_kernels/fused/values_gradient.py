"""Gradient of the activations at the support: k products of rows per sample.

    d_z[i, s] = sum over d of g[i, d] W[indices[i, s], d]

An index outside the dictionary reads nothing.

Shapes: g [B, D], indices and d_z [B, K], W [N, D].
"""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def values_gradient_bwd_kernel(
    g_ptr, indices_ptr, w_ptr, dz_ptr, N, D, K, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr
):
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
        total += g[None, :] * w.to(tl.float32)
    tl.store(dz_ptr + row * K + s, tl.sum(total, axis=1), mask=s < K)


def values_gradient_bwd(g: Tensor, indices: Tensor, W: Tensor, d_z: Tensor) -> None:
    """Fill `d_z` [B, K], float32."""
    (B, K), (N, D) = indices.shape, W.shape
    block_k = min(16, triton.next_power_of_2(K))
    block_d = min(256, max(16, triton.next_power_of_2(D)))
    values_gradient_bwd_kernel[(B, triton.cdiv(K, block_k))](
        g, indices, W, d_z, N, D, K, BLOCK_K=block_k, BLOCK_D=block_d, num_warps=4
    )
