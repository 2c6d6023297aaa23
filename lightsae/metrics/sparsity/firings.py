"""How often latents fire."""

import torch
from torch import Tensor


def firings_of(values: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    """How often each latent has a positive activation, int64 [d_sae].

    Example:
        >>> firings_of(torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 0]]), d_sae=4)
        tensor([0, 0, 0, 1])
    """
    fired = (values > 0).long().flatten()
    return torch.zeros(d_sae, dtype=torch.long, device=values.device).scatter_add_(
        0, indices.flatten(), fired
    )
