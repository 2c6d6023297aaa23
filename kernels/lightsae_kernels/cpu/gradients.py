"""Sparse weight gradients: the B k pairs sorted by latent once, shared by encoder and decoder.

    dW[j] = sum over the pairs (i, s) with indices[i, s] = j of coefficient[i, s] * rows[i]

Each row of dW is one bag of an embedding_bag over the samples: no [B k, d_in] tensor, no atomics,
the same order of additions every time.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels.shared import Shared


class LatentOrder(NamedTuple):
    """The pairs of a batch in order of latent (compressed sparse columns)."""

    permutation: Tensor
    sample: Tensor
    offsets: Tensor


def latent_order(indices: Tensor, d_sae: int) -> LatentOrder:
    """Order the pairs of indices [B, k] by latent, samples ascending within a latent."""
    flat = indices.reshape(-1)
    narrow = flat.to(torch.int16 if d_sae <= 1 << 15 else torch.int32)
    permutation = narrow.sort(stable=True).indices
    counts = torch.bincount(flat, minlength=d_sae)
    sample = permutation // max(indices.shape[1], 1)
    return LatentOrder(permutation, sample, counts.cumsum(0) - counts)


def weight_gradient(
    order: Shared[LatentOrder], indices: Tensor, coefficient: Tensor, rows: Tensor, d_sae: int
) -> Tensor:
    """Gradient of a [d_sae, d_in] matrix from coefficients [B, k] and sample rows [B, d_in]."""
    if indices.numel() == 0:
        return rows.new_zeros(d_sae, rows.shape[1])
    by_latent = order.get(d_sae, lambda: latent_order(indices, d_sae))
    weights = coefficient.reshape(-1)[by_latent.permutation].to(rows.dtype)
    return F.embedding_bag(
        by_latent.sample, rows, by_latent.offsets, mode="sum", per_sample_weights=weights
    )


def latent_sums(indices: Tensor, coefficient: Tensor, d_sae: int) -> Tensor:
    """Sum of the coefficients that fall on each latent, [d_sae]."""
    sums = coefficient.new_zeros(d_sae)
    return sums.index_add_(0, indices.reshape(-1), coefficient.reshape(-1))
