"""AuxK: the best dead latents reconstruct what is left, and nobody else notices."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import AuxK, SparseAutoencoder, aux_k_loss, objective

from ..helpers import assert_close, untied

D_IN, D_SAE, ROWS = 6, 24, 20


def batch(rows: int = ROWS, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, D_IN, dtype=torch.float64, generator=generator)


def some_dead() -> Tensor:
    return torch.arange(D_SAE) % 4 == 1


def loss_and_gradients(sae: SparseAutoencoder, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loss = aux_k_loss(sae, *arguments)
    names, parameters = zip(*sae.named_parameters(), strict=True)
    return loss, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def test_is_zero_when_nothing_is_dead() -> None:
    nobody = torch.zeros(D_SAE, dtype=torch.bool)
    assert aux_k_loss(untied(D_IN, D_SAE, 3), batch(), batch(seed=2), nobody, k_aux=4) == 0


def test_is_the_share_of_variance_that_dead_latents_leave() -> None:
    """Dead latents that output nothing leave ||e||^2; the normaliser is the centred variance."""
    sae = untied(D_IN, D_SAE, 3)
    sae.b_enc.data.fill_(-1e3)
    e = batch(seed=2) + 5
    expected = e.square().sum() / (e - e.mean(dim=0)).square().sum()
    assert_close("aux_k", aux_k_loss(sae, batch(), e, some_dead(), 4).detach(), expected, 1e-12)


def test_is_zero_when_dead_latents_explain_everything() -> None:
    """Latent j reads and writes +-dimension j, so that all latents together are the identity."""
    sae = untied(D_IN, 2 * D_IN, 1)
    both = torch.cat([torch.eye(D_IN), -torch.eye(D_IN)]).double()
    for parameter, value in zip(sae.parameters(), (both, 0, both, 0), strict=True):
        parameter.data.copy_(torch.as_tensor(value))
    everybody = torch.ones(2 * D_IN, dtype=torch.bool)
    assert aux_k_loss(sae, batch(), batch(), everybody, k_aux=2 * D_IN) < 1e-25


def test_has_no_bias_in_its_reconstruction() -> None:
    sae, x, e = untied(D_IN, D_SAE, 3), batch(), batch(seed=2)
    before = aux_k_loss(sae, x, e, some_dead(), 4)
    shift = torch.full((D_IN,), 9.0, dtype=torch.float64)
    sae.b_dec.data += shift
    assert_close(
        "aux_k", aux_k_loss(sae, x + shift, e, some_dead(), 4).detach(), before.detach(), 1e-12
    )


def test_uses_as_many_as_there_are_when_fewer_than_k_aux_are_dead() -> None:
    sae, dead = untied(D_IN, D_SAE, 3), some_dead()
    count = int(dead.sum())
    losses = [aux_k_loss(sae, batch(), batch(seed=2), dead, k) for k in (count, count + 1, 10_000)]
    assert losses[0] == losses[1] == losses[2]
    assert losses[0] != aux_k_loss(sae, batch(), batch(seed=2), dead, 1)


def test_uses_the_dead_latents_that_are_largest_before_selection() -> None:
    sae, dead = untied(D_IN, D_SAE, 3), some_dead()
    x, e = batch(1), batch(1, seed=2).repeat(2, 1)
    a = sae.pre_activations(x).relu().masked_fill(~dead, -1)
    best = int(a.argmax())
    _, grads = loss_and_gradients(sae, x.repeat(2, 1), e * torch.tensor([[1.0], [2.0]]), dead, 1)
    assert grads["W_dec"].any(dim=1).nonzero().flatten().tolist() == [best]


@pytest.mark.parametrize("k_aux", [1, 4, 256])
def test_never_touches_the_rows_of_living_latents(k_aux: int) -> None:
    sae, dead = untied(D_IN, D_SAE, 3), some_dead()
    _, grads = loss_and_gradients(sae, batch(), batch(seed=2), dead, k_aux)
    for name in ("W_enc", "b_enc", "W_dec"):
        assert not grads[name][~dead].any(), f"{name} of a living latent"
        assert grads[name][dead].any(), f"{name} of dead latents"


def test_reaches_the_bias_through_the_encoder_alone() -> None:
    """Then its gradient is minus that of b_enc, taken back through W_enc."""
    sae = untied(D_IN, D_SAE, 3)
    _, grads = loss_and_gradients(sae, batch(), batch(seed=2), some_dead(), 4)
    assert_close("db_dec", grads["b_dec"], -(grads["b_enc"] @ sae.W_enc.detach()), 1e-12)


def test_takes_the_residual_as_a_constant() -> None:
    sae, residual = untied(D_IN, D_SAE, 3), batch(seed=2).requires_grad_()
    loss = aux_k_loss(sae, batch(), residual, some_dead(), 4)
    loss.backward()
    assert residual.grad is None
    parts = objective(sae, batch(), aux_k=AuxK(k_aux=4), dead=lambda encoded: some_dead())
    (grad,) = torch.autograd.grad(parts.aux_k, sae.W_dec)
    assert not grad[~some_dead()].any(), "through the residual it would reach selected latents"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("size", [0.0, 0.1, 1e3])
def test_a_residual_that_is_the_same_in_every_row_counts_0(
    dtype: torch.dtype, rows: int, size: float
) -> None:
    sae = untied(D_IN, D_SAE, 3).to(dtype)
    e = (size * batch(1, seed=2)).to(dtype).expand(rows, D_IN)
    loss, grads = loss_and_gradients(sae, batch(rows).to(dtype), e, some_dead(), 4)
    assert loss == 0
    for name, grad in grads.items():
        assert not grad.any(), f"gradient of {name}"


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_size_of_the_residual_does_not_matter(size: float) -> None:
    sae, x, e = untied(D_IN, D_SAE, 3), batch(), batch(seed=2)
    sae.W_dec.data *= size
    wanted = aux_k_loss(untied(D_IN, D_SAE, 3), x, e, some_dead(), 4)
    assert_close(
        "aux_k", aux_k_loss(sae, x, size * e, some_dead(), 4).detach(), wanted.detach(), 1e-12
    )


def test_rows_that_differ_slightly_are_not_taken_for_equal() -> None:
    sae = untied(D_IN, D_SAE, 3).float()
    sae.W_dec.data.zero_()
    e = (100 + 0.1 * batch(seed=2)).float()
    exact = e.double().square().sum() / (e.double() - e.double().mean(dim=0)).square().sum()
    assert_close("aux_k", aux_k_loss(sae, batch().float(), e, some_dead(), 4).detach(), exact, 1e-3)


def test_a_batch_larger_than_the_dtype_counts_is_averaged_rightly() -> None:
    """bfloat16 has no 4097 and float16 no 70000."""
    sae, rows = untied(D_IN, D_SAE, 3), 70_001
    x, e = batch(rows), batch(rows, seed=2)
    wanted = aux_k_loss(sae, x, e, some_dead(), 4).item()
    for dtype in (torch.float16, torch.bfloat16):
        narrow = untied(D_IN, D_SAE, 3).to(dtype)
        found = aux_k_loss(narrow, x.to(dtype), e.to(dtype), some_dead(), 4)
        assert found.item() == pytest.approx(wanted, rel=0.02), dtype


@pytest.mark.parametrize("name", ["k_aux", "dead_after"])
def test_counts_are_at_least_1(name: str) -> None:
    assert AuxK(**{name: 1})
    with pytest.raises(LightsaeError, match=f"{name} must be at least 1, got 0"):
        AuxK(**{name: 0})


@pytest.mark.parametrize("name", ["weight", "fired_above"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weight_and_threshold_are_finite_numbers_of_at_least_0(name: str, value: float) -> None:
    assert AuxK(**{name: 0.0})
    with pytest.raises(LightsaeError, match=f"{name} must be at least 0 and finite, got"):
        AuxK(**{name: value})


def test_defaults_are_those_of_the_released_code() -> None:
    assert AuxK() == AuxK(
        weight=1 / 32, k_aux=256, dead_after=None, fired_above=1e-3, dead_after_multiple=80
    )


def test_a_latent_is_dead_after_a_multiple_of_its_mean_distance_between_firings() -> None:
    assert AuxK().dead_after_rows(d_sae=512, k=8) == 5120
    assert AuxK(dead_after_multiple=2.5).dead_after_rows(d_sae=8192, k=32) == 640
    assert AuxK(dead_after_multiple=0.1).dead_after_rows(d_sae=4, k=4) == 1
    assert AuxK(dead_after=7, dead_after_multiple=9).dead_after_rows(d_sae=512, k=8) == 7


@pytest.mark.parametrize("multiple", [0.0, -1.0, float("nan"), float("inf")])
def test_the_multiple_is_positive(multiple: float) -> None:
    with pytest.raises(LightsaeError, match="dead_after_multiple must be positive and finite, got"):
        AuxK(dead_after_multiple=multiple)
