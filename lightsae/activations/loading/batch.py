"""`ActivationBatch`, what a data loader gives to the module."""

from typing import NamedTuple

from torch import Tensor


class ActivationBatch(NamedTuple):
    """A batch of activations and where each row came from.

    Attributes:
        activations: Float tensor `[B, d_in]`, in the model's own units.
        sample_index: Int64 `[B]`, the sample (image) that each row belongs to.
        token_index: Int64 `[B]`, the token of that sample.
        label: Int64 `[B]`, the sample's class, or None where the data had no labels.

    Example:
        >>> import torch
        >>> rows = torch.arange(2)
        >>> batch = ActivationBatch(torch.zeros(2, 3), rows, torch.zeros_like(rows), None)
        >>> batch.activations.shape
        torch.Size([2, 3])
    """

    activations: Tensor
    sample_index: Tensor
    token_index: Tensor
    label: Tensor | None
