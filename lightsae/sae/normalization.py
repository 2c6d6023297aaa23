"""Normalisation of the inputs of an autoencoder, and its inverse."""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

Normalization: TypeAlias = Literal[
    "variance", "none", "centre", "centre_scale", "layer_norm", "layer_norm_unbiased", "unit_norm"
]
ROW_WISE = ("layer_norm", "layer_norm_unbiased", "unit_norm")
# Of layer_norm_unbiased; in the units of the inputs.
EPSILON = 1e-5


class Normalized(NamedTuple):
    """Inputs as an autoencoder works with them.

    Attributes:
        x: x = shift + factor * this, [B, d_in]; shift is 0 but for layer_norm.
        statistics: Shift and factor of each row, [B, 2], at least float32; None where a single
            factor, `scale`, serves for all.
    """

    x: Tensor
    statistics: Tensor | None


def require_known(normalization: str) -> None:
    """Refuse a normalisation that there is not.

    Raises:
        LightsaeError: Naming those there are.

    Example:
        >>> require_known("batch_norm")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: normalization is 'batch_norm', expected one of variance, \
none, centre, centre_scale, layer_norm, layer_norm_unbiased, unit_norm
    """
    known = get_args(Normalization)
    if normalization not in known:
        raise LightsaeError(
            f"normalization is {normalization!r}, expected one of {', '.join(known)}"
        )


def row_statistics(x: Tensor, normalization: Normalization) -> Tensor | None:
    """Shift and factor of each row.

    Args:
        x: Inputs, [B, d_in].
        normalization: layer_norm: mean and standard deviation (divisor d_in) of the row's numbers.
            layer_norm_unbiased: mean and standard deviation with divisor d_in - 1.
            unit_norm: 0 and the row's l2 norm.

    Returns:
        [B, 2], at least float32. But for layer_norm_unbiased a factor of 0 becomes the smallest
        normal number, so that the row is 0, and one within the rounding of the shift becomes the
        shift's size, so that it is nearly so. None if the normalisation is not by row.

    Example:
        >>> row_statistics(torch.tensor([[3.0, 5.0]]), "layer_norm")
        tensor([[4., 1.]])
        >>> row_statistics(torch.tensor([[3.0, 4.0]]), "unit_norm")
        tensor([[0., 5.]])
    """
    if normalization not in ROW_WISE:
        return None
    wide = x if x.dtype == torch.float64 else x.float()
    shift, size = torch.zeros_like(wide[:, :1]), 1.0
    if normalization == "layer_norm_unbiased":
        return torch.cat([wide.mean(dim=1, keepdim=True), wide.std(dim=1, keepdim=True)], dim=1)
    if normalization == "layer_norm":
        shift, size = wide.mean(dim=1, keepdim=True), math.sqrt(x.shape[1])
    factor = torch.linalg.vector_norm(wide - shift, dim=1, keepdim=True) / size
    known = torch.finfo(wide.dtype)
    factor = torch.where(factor > 8 * known.eps * shift.abs(), factor, shift.abs())
    return torch.cat([shift, factor.clamp_min(known.tiny)], dim=1)


def normalize_rows(
    x: Tensor, statistics: Tensor, normalization: Normalization = "layer_norm"
) -> Tensor:
    """Rows less their shift, divided by their factor; in their dtype.

    Args:
        x: Inputs, [B, d_in].
        statistics: Of `row_statistics`, [B, 2].
        normalization: layer_norm_unbiased divides by the factor + 1e-5.

    Example:
        >>> normalize_rows(torch.tensor([[3.0, 5.0]]), torch.tensor([[4.0, 1.0]]))
        tensor([[-1.,  1.]])
    """
    factor = statistics[:, 1:]
    if normalization == "layer_norm_unbiased":
        factor = factor + EPSILON
    return ((x - statistics[:, :1]) / factor).to(x.dtype)
