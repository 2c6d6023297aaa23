"""Random weights, inputs, and what it means that two autoencoders agree."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightsae.sae import SparseAutoencoder

D_IN, D_SAE, ROWS = 24, 96, 1000


class RandomWeights(NamedTuple):
    """W_enc [d_sae, d_in], b_enc [d_sae], W_dec [d_sae, d_in], b_dec [d_in], float32."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


class Library(Protocol):
    """Codes [B, d_sae] and reconstructions [B, d_in] by a library's formulas, in float64."""

    def encode(self, x: Tensor) -> Tensor: ...

    def reconstruct(self, x: Tensor) -> Tensor: ...


def random_weights(seed: int = 0, d_in: int = D_IN, d_sae: int = D_SAE) -> RandomWeights:
    """No row has unit norm and no bias is 0, so that nothing can be left out unseen."""
    draw = torch.Generator().manual_seed(seed)
    W_enc = torch.randn(d_sae, d_in, generator=draw) / d_in**0.5
    W_dec = W_enc * torch.rand(d_sae, 1, generator=draw).add(0.5)
    b_enc = torch.randn(d_sae, generator=draw) * 0.3 + 0.3
    return RandomWeights(W_enc, b_enc, W_dec, torch.randn(d_in, generator=draw))


def rows(seed: int = 1, d_in: int = D_IN, spread: float = 3.0) -> Tensor:
    """Inputs [1000, d_in] with a mean of their own."""
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(d_in, generator=draw)
    return spread * torch.randn(ROWS, d_in, generator=draw) + mean


@torch.no_grad()
def assert_agree(sae: SparseAutoencoder, library: Library, x: Tensor, tolerance: float = 1e-5):
    """The same latents fire, with the same values, and the rows are the same, each to 1e-5."""
    code = sae.encode(x)
    found, expected = code.to_dense().double(), library.encode(x.double())
    assert torch.equal(found != 0, expected != 0)
    assert _relative_error(found, expected) < tolerance
    found = sae.decode(code, x).double()
    assert _relative_error(found, library.reconstruct(x.double())) < tolerance


def _relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest ||found - expected|| / ||expected|| of a row."""
    lengths = expected.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return ((found - expected).norm(dim=1) / lengths).max().item()


def same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same numbers of the same dtypes."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


@torch.no_grad()
def assert_same_function(found: SparseAutoencoder, expected: SparseAutoencoder, tolerance=1e-5):
    """Equal codes and reconstructions of 1,000 rows, but for rounding."""
    x = rows(seed=9, d_in=expected.d_in)
    code, wanted = found.encode(x), expected.encode(x)
    assert torch.equal(code.to_dense() != 0, wanted.to_dense() != 0)
    assert _relative_error(code.to_dense(), wanted.to_dense()) < tolerance
    assert _relative_error(found.decode(code, x), expected.decode(wanted, x)) < tolerance
