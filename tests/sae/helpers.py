"""Small autoencoders with untied random weights, and a comparison that names what differs."""

import torch
from torch import Tensor

from lightsae.sae import SparseAutoencoder, TopK


def untied(d_in: int, d_sae: int, k: int, *, seed: int = 0, grid: float = 0.0) -> SparseAutoencoder:
    """Float64, nothing at its initial value; on a grid, where sums are exact, for ties."""
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(d_in, d_sae, TopK(k)).double()
    for parameter in sae.parameters():
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7
        parameter.data.copy_((draw / grid).round() * grid if grid else draw)
    return sae


def assert_close(name: str, actual: Tensor | None, expected: Tensor, tolerance: float) -> None:
    """||actual - expected|| <= tolerance ||expected||; no gradient at all counts as zero.

    What terms of order 1 leave when they cancel is known to the rounding of its dtype, no better.
    """
    rounding = 4 * torch.finfo((expected if actual is None else actual).dtype).eps
    actual = torch.zeros_like(expected) if actual is None else actual.double()
    assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
    error, size = (torch.linalg.vector_norm(t) for t in (actual - expected, expected))
    assert error <= tolerance * size + rounding, f"{name} is off by {error:.2e} of {size:.2e}"
