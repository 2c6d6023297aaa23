"""Residuals of nested parts of a sparse code, each place decoded once.

What the places of one level add to a row is a bag of its own; the parts are running sums of these.
In the backward pass a place meets the gradient of every part from its level on, which are running
sums from the other end.

Shapes: values, indices and levels [B, k], W_dec [d_sae, d_in], residuals and g [B, P, d_in].
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels.cpu.used_places import UsedPlaces
from lightsae_kernels.cpu.weight_gradients import LatentOrder
from lightsae_kernels.types import Decoder


def nested_residuals(
    x: Tensor, values: Tensor, indices: Tensor, levels: Tensor, parts: int, W_dec: Tensor,
    b_dec: Tensor | None, used: Tensor | None,
) -> Tensor:  # fmt: skip
    """What each part leaves of x, at least float32, [B, P, d_in]."""
    (B, d_in), P = x.shape, parts
    wide = torch.promote_types(torch.promote_types(x.dtype, W_dec.dtype), torch.float32)
    residuals = torch.zeros(B, P, d_in, dtype=wide)
    places = UsedPlaces.all(indices) if used is None else UsedPlaces.of(used)
    if len(places.rows):
        bag = places.rows * P + places.take(levels)
        by_bag = bag.sort(stable=True)
        counts = torch.bincount(bag, minlength=B * P)
        latents = places.take(indices)[by_bag.indices]
        weights = places.take(values)[by_bag.indices].to(W_dec.dtype)
        added = F.embedding_bag(
            latents, W_dec, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights
        )
        residuals = added.view(B, P, d_in).to(wide).neg_()
    residuals[:, 0] += x if b_dec is None else x - b_dec
    for part in range(1, P):
        residuals[:, part] += residuals[:, part - 1]
    return residuals


def add_later_parts_(g: Tensor) -> None:
    """Turn the gradient of each part's reconstruction into that of what each level adds."""
    for part in range(g.shape[1] - 2, -1, -1):
        g[:, part] += g[:, part + 1]


def nested_values_gradient(
    g: Tensor, indices: Tensor, levels: Tensor, decoder: Decoder, used: Tensor | None
) -> Tensor:
    """Gradient of the values given that of what each level adds, [B, k]; 0 where not used."""
    (B, P, d_in), W_dec = g.shape, decoder.W
    places = UsedPlaces.all(indices) if used is None else UsedPlaces.of(used)
    bags = places.rows * P + places.take(levels)
    # What the graph of an embedding bag runs; torch has no other name for it.
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        g.view(B * P, d_in).to(W_dec.dtype), W_dec, places.take(indices), places.offsets, bags, 0
    )
    return places.put(products)


def nested_decoder_gradient(
    g: Tensor, order: LatentOrder, values: Tensor, levels: Tensor
) -> Tensor:
    """Gradient of W_dec, [d_sae, d_in]."""
    B, P, d_in = g.shape
    rows = g.view(B * P, d_in)
    if len(order.permutation) == 0:
        return rows.new_zeros(len(order.offsets), d_in)
    bags = order.sample * P + levels.reshape(-1)[order.permutation]
    weights = values.reshape(-1)[order.permutation].to(rows.dtype)
    return F.embedding_bag(bags, rows, order.offsets, mode="sum", per_sample_weights=weights)
