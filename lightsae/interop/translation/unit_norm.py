"""Two ways to make rows of one length: an l2 norm of 1, or of sqrt(d_in)."""

import math

from lightsae.interop.translation.weights import Weights, widened


def from_mean_square_norm(weights: Weights) -> Weights:
    """Weights for rows of norm 1 that give the codes of these for rows of norm sqrt(d_in).

    Example:
        >>> import torch
        >>> rows = torch.ones(1, 4)
        >>> from_mean_square_norm(Weights(rows, torch.ones(1), rows, torch.ones(4))).W_enc
        tensor([[2., 2., 2., 2.]])
    """
    return _scaled(weights, math.sqrt(weights.W_enc.shape[1]))


def to_mean_square_norm(weights: Weights) -> Weights:
    """The inverse of `from_mean_square_norm`."""
    return _scaled(weights, 1 / math.sqrt(weights.W_enc.shape[1]))


def _scaled(weights: Weights, factor: float) -> Weights:
    W_enc, b_enc, W_dec, b_dec = widened(weights)
    return Weights(W_enc * factor, b_enc, W_dec / factor, b_dec / factor)
