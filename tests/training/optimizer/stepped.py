"""An autoencoder, its optimizer and gradients to step it with."""

from typing import Any

import torch
from torch import Tensor

from lightsae.sae import SparseAutoencoder, TopK
from lightsae.training import SAEAdam


def autoencoder() -> SparseAutoencoder:
    torch.manual_seed(0)
    return SparseAutoencoder(6, 24, TopK(3))


def ours(sae: SparseAutoencoder, **options: Any) -> SAEAdam:
    optimizer = SAEAdam(sae.parameters(), lr=1e-2, **options)
    optimizer.keep_unit_rows(sae.W_dec)
    return optimizer


def draw_gradients(sae: SparseAutoencoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.grad[0] = 0


def relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def fused(parameters: Any) -> torch.optim.Optimizer:
    return SAEAdam(parameters, lr=0.01)
