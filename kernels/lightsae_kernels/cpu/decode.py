"""Sparse decode x_hat = sum_s values[i, s] W_dec[indices[i, s]] + b_dec, without a dense code."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels.cpu.used_places import UsedPlaces
from lightsae_kernels.types import Decoder, Left


def decode_forward(
    values: Tensor, indices: Tensor, decoder: Decoder, used: Tensor | None = None
) -> Tensor:
    """Reconstructions [B, d_in]: one bag of decoder rows, as they are stored, for each sample."""
    W_dec, b_dec = decoder.W, decoder.b
    if values.numel() == 0:
        x_hat = W_dec.new_zeros(len(values), W_dec.shape[1])
    else:
        weights, offsets = values.to(W_dec.dtype), None
        if used is not None:
            places = UsedPlaces.of(used)
            weights, indices, offsets = places.take(weights), places.take(indices), places.offsets
        x_hat = F.embedding_bag(indices, W_dec, offsets, mode="sum", per_sample_weights=weights)
    return x_hat if b_dec is None else x_hat + b_dec


def residual_forward(
    x: Tensor, values: Tensor, indices: Tensor, decoder: Decoder, used: Tensor | None = None
) -> Left:
    """What the reconstructions leave of x and its squared norms, at least in float32."""
    residual = x - decode_forward(values, indices, decoder, used)
    residual = residual.to(torch.promote_types(residual.dtype, torch.float32))
    return Left(residual, residual.square().sum(dim=1))


def values_gradient(
    g: Tensor, indices: Tensor, decoder: Decoder, used: Tensor | None = None
) -> Tensor:
    """Gradient of the values given that of the reconstructions, [B, k]; 0 where not used."""
    W_dec = decoder.W
    places = UsedPlaces.all(indices) if used is None else UsedPlaces.of(used)
    # What the graph of an embedding bag runs; torch has no other name for it.
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        g.to(W_dec.dtype), W_dec, places.take(indices), places.offsets, places.rows, 0
    )
    return places.put(products)
