"""What two autoencoders must have in common."""

import torch
from torch import Tensor

from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder


def rows(d_in: int, count: int = 1000) -> Tensor:
    """Inputs that are not centred, [count, d_in]."""
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(count, d_in, generator=generator) + 0.5


@torch.no_grad()
def assert_agrees(sae: SparseAutoencoder, x: Tensor, codes: Tensor, x_hat: Tensor) -> None:
    """Codes [B, d_sae] and reconstructions of another library, to 1e-5 of each row's norm.

    Supports are the same but where activations are within 1e-6 of what decides.
    """
    ours = sae.encode(x).to_dense()
    differs = (ours > 0) != (codes > 0)
    for row in differs.any(dim=1).nonzero().flatten().tolist():
        assert_near_tie(sae, x[row : row + 1], differs[row])
    same = ~differs.any(dim=1)
    assert same.sum() > 0.99 * len(x)
    assert codes.count_nonzero() > len(x)
    assert relative(ours[same], codes[same]) < 1e-5, "codes"
    assert relative(sae(x)[same], x_hat[same]) < 1e-5, "reconstructions"


def assert_near_tie(sae: SparseAutoencoder, x: Tensor, differs: Tensor) -> None:
    a = sae.pre_activations(x).relu()[0]
    rivals = a[differs]
    if isinstance(sae.selection, (BatchTopK, JumpReLU)):
        rivals = rivals - sae.selection.threshold.expand(sae.d_sae)[differs]
        assert rivals.abs().max() < 1e-6 * a.max()
    else:
        assert rivals.max() - rivals.min() < 1e-6 * a.max()


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest distance of two rows over the norm of the second."""
    found, expected = found.detach(), expected.detach()
    norms = torch.linalg.vector_norm(expected, dim=1).clamp_min(1e-6)
    return float((torch.linalg.vector_norm(found - expected, dim=1) / norms).max())


def assert_same(one: SparseAutoencoder, other: SparseAutoencoder) -> None:
    """Class, weights, rule and normalisation, bit for bit."""
    assert type(one) is type(other)
    assert type(one.selection) is type(other.selection)
    assert one.selection.settings() == other.selection.settings()
    assert one.normalization == other.normalization
    assert one.apply_b_dec_to_input == other.apply_b_dec_to_input
    found, expected = one.state_dict(), other.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
