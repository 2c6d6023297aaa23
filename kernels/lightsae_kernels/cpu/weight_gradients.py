"""Sparse weight gradients: the B k pairs sorted by latent once, shared by encoder and decoder.

    dW[j] = sum over the pairs (i, s) with indices[i, s] = j of coefficient[i, s] * rows[i]

Each row of dW is one bag of an embedding_bag over the samples: no [B k, d_in] tensor, no atomics,
the same order of additions every time.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels.cpu.used_places import UsedPlaces, marked
from lightsae_kernels.types import DecoderPairs


class LatentOrder(NamedTuple):
    """The pairs of a batch in order of latent (compressed sparse columns)."""

    permutation: Tensor
    sample: Tensor
    offsets: Tensor


def latent_order(indices: Tensor, d_sae: int, used: Tensor | None = None) -> LatentOrder:
    """Order the pairs of indices [B, k] by latent, samples ascending within a latent.

    Args:
        indices: Latents, [B, k].
        d_sae: Size of the dictionary.
        used: Which pairs count, [B, k] bool; the others have no place. None is all of them.
    """
    places = None if used is None else marked(used)
    flat = indices.reshape(-1) if places is None else indices.reshape(-1)[places]
    narrow = flat.to(torch.int16 if d_sae <= 1 << 15 else torch.int32)
    permutation = narrow.sort(stable=True).indices
    if places is not None:
        permutation = places[permutation]
    counts = torch.bincount(flat, minlength=d_sae)
    sample = permutation // max(indices.shape[1], 1)
    return LatentOrder(permutation, sample, counts.cumsum(0) - counts)


def order_sizes(pairs: int, d_sae: int) -> list[int]:
    """How long the tensors of an order are."""
    return [pairs, pairs, d_sae]


ORDER_DTYPE = torch.int64


def weight_gradient(order: LatentOrder, coefficient: Tensor, rows: Tensor) -> Tensor:
    """Gradient of a [d_sae, d_in] matrix from coefficients [B, k] and sample rows [B, d_in]."""
    if coefficient.numel() == 0:
        return rows.new_zeros(len(order.offsets), rows.shape[1])
    weights = coefficient.reshape(-1)[order.permutation].to(rows.dtype)
    return F.embedding_bag(
        order.sample, rows, order.offsets, mode="sum", per_sample_weights=weights
    )


def decoder_gradient(order: LatentOrder, pairs: DecoderPairs) -> Tensor:
    """Gradient of W_dec, [d_sae, d_in]."""
    return weight_gradient(order, pairs.z, pairs.g)


def latent_sums(
    indices: Tensor, coefficient: Tensor, d_sae: int, used: Tensor | None = None
) -> Tensor:
    """Sum of the coefficients that fall on each latent, [d_sae]; they are 0 where not used."""
    places = UsedPlaces.all(indices) if used is None else UsedPlaces.of(used)
    sums = coefficient.new_zeros(d_sae)
    return sums.index_add_(0, places.take(indices), places.take(coefficient))
