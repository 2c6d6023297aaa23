"""Sparse weight gradients: the B k pairs sorted by latent once, shared by encoder and decoder.

    dW[j] = sum over the pairs (i, s) with indices[i, s] = j of coefficient[i, s] * rows[i]

Each row of dW is one bag of an embedding_bag over the samples: no [B k, d_in] tensor, no atomics,
the same order of additions every time.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary


class Sorted(NamedTuple):
    """The pairs of a batch in order of latent (compressed sparse columns)."""

    permutation: Tensor
    sample: Tensor
    offsets: Tensor


class LatentOrder:
    """Sorts the index set of one batch when it is first asked for, and keeps the answer."""

    def __init__(self) -> None:
        self._sorted: Sorted | None = None

    def sort(self, indices: Tensor, d_sae: int) -> Sorted:
        """Order the pairs of indices [B, k] by latent, samples ascending within a latent."""
        if self._sorted is None:
            flat = indices.reshape(-1)
            narrow = flat.to(torch.int16 if d_sae <= 1 << 15 else torch.int32)
            permutation = narrow.sort(stable=True).indices
            counts = torch.bincount(flat, minlength=d_sae)
            sample = permutation // max(indices.shape[1], 1)
            self._sorted = Sorted(permutation, sample, counts.cumsum(0) - counts)
        return self._sorted


_orders = WeakTensorKeyDictionary()


def remember_order(indices: Tensor, order: LatentOrder) -> None:
    """Tie an order to an index tensor for as long as the tensor lives unchanged."""
    if not indices.is_inference():
        _orders[indices] = (indices._version, order)


def latent_order(indices: Tensor) -> LatentOrder:
    """The order that belongs to this tensor as it is now: one for encoder and decoder."""
    known: tuple[int, LatentOrder] | None = _orders.get(indices)
    if known is not None and known[0] == indices._version:
        return known[1]
    order = LatentOrder()
    remember_order(indices, order)
    return order


def weight_gradient(
    order: LatentOrder, indices: Tensor, coefficient: Tensor, rows: Tensor, d_sae: int
) -> Tensor:
    """Gradient of a [d_sae, d_in] matrix from coefficients [B, k] and sample rows [B, d_in]."""
    if indices.numel() == 0:
        return rows.new_zeros(d_sae, rows.shape[1])
    by_latent = order.sort(indices, d_sae)
    weights = coefficient.reshape(-1)[by_latent.permutation].to(rows.dtype)
    return F.embedding_bag(
        by_latent.sample, rows, by_latent.offsets, mode="sum", per_sample_weights=weights
    )


def latent_sums(indices: Tensor, coefficient: Tensor, d_sae: int) -> Tensor:
    """Sum of the coefficients that fall on each latent, [d_sae]."""
    sums = coefficient.new_zeros(d_sae)
    return sums.index_add_(0, indices.reshape(-1), coefficient.reshape(-1))
