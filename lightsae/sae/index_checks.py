"""Indices of latents, checked: integers of any width as int64, within the dictionary."""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def integers(name: str, tensor: Tensor) -> Tensor:
    """An integer tensor as int64, so that no product of its numbers overflows early.

    Args:
        name: What the message calls it.
        tensor: int8, int16, int32, int64 or uint8.

    Raises:
        LightsaeError: If it holds something else; float64 counts only to 2^53.

    Example:
        >>> integers("indices", torch.tensor([3], dtype=torch.int32))
        tensor([3])
    """
    if tensor.dtype not in _INTEGERS:
        raise LightsaeError(f"{name} is {tensor.dtype}, expected integers such as int64")
    return tensor.long()


def within(name: str, index: Tensor, size: int, legend: str) -> Tensor:
    """The index, refused if a number of it is negative or not below `size`.

    Example:
        >>> within("indices", torch.tensor([4]), 4, "d_sae = 4")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: indices must lie in [0, d_sae = 4)
    """
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise LightsaeError(f"{name} must lie in [0, {legend})")
    return index


def latent_indices(values: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    """Latents of activations, int64.

    Args:
        values: Activations of any shape.
        indices: Their latents, integers of the same shape and on the same device.
        d_sae: Number of latents.

    Raises:
        LightsaeError: If they do not fit together, or a latent is not in the dictionary.

    Example:
        >>> latent_indices(torch.ones(1, 1), torch.tensor([[3]], dtype=torch.int32), d_sae=4)
        tensor([[3]])
    """
    if values.shape != indices.shape:
        raise LightsaeError(
            f"indices has shape {list(indices.shape)}, expected values' {list(values.shape)}"
        )
    if values.device != indices.device:
        raise LightsaeError(f"values is on {values.device} but indices is on {indices.device}")
    return within("indices", integers("indices", indices), d_sae, f"d_sae = {d_sae}")
