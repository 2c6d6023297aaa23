"""A linear model in which it is known which latents cause the output."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.sae import SparseAutoencoder, TopK

D, K, PLANTED = 64, 20, 8


@dataclass
class Planted:
    """Orthonormal latents, some of which the head reads with a weight each.

    Attributes:
        model: [B, T, D] to [B, T, 1]; the layer is "layer".
        sae: Its code of the layer's output is exact to 1e-9.
        weights: What one unit of a latent adds to the output, [D].
        causal: The latents whose weight is not 0, [PLANTED].
    """

    model: nn.Module
    sae: SparseAutoencoder
    weights: Tensor
    causal: set[int]

    def codes(self, *lead: int, seed: int = 0) -> Tensor:
        """Random codes of at most K latents, [*lead, D]."""
        generator = torch.Generator().manual_seed(seed)
        amounts = torch.rand(*lead, D, generator=generator, dtype=torch.float64) + 0.1
        score = torch.rand(*lead, D, generator=generator)
        fires = score >= score.topk(K, dim=-1).values[..., -1:]
        return amounts * fires * (torch.rand(*lead, D, generator=generator) < 0.7)

    def inputs(self, codes: Tensor) -> Tensor:
        return codes @ self.sae.W_dec.detach()


class _Model(nn.Module):
    def __init__(self, head: Tensor) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(D, 1, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.copy_(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


def planted(seed: int = 0) -> Planted:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(D, D, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(noise).Q
    causal = torch.randperm(D, generator=generator)[:PLANTED]
    weights = torch.zeros(D, dtype=torch.float64)
    sizes = 1 + torch.rand(PLANTED, generator=generator, dtype=torch.float64)
    weights[causal] = sizes * torch.tensor([1.0, -1.0] * (PLANTED // 2))
    sae = SparseAutoencoder(D, D, TopK(K), normalization="none").double()
    with torch.no_grad():
        sae.W_enc.copy_(basis)
        sae.W_dec.copy_(basis)
        # Above the rounding of x, which would fire otherwise.
        sae.b_enc.fill_(-1e-9)
    return Planted(_Model(weights @ basis), sae, weights, set(causal.tolist()))


def labels_of(output: Tensor) -> np.ndarray:
    """1 where an output is above the median of all."""
    return (output > output.median()).long().numpy()


def precision(ranking, wanted: set[int]) -> float:
    return len(wanted & set(ranking[: len(wanted)].tolist())) / len(wanted)
