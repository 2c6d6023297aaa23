"""JumpReLU: straight-through gradients of thresholds, and the L0 that it holds."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import JumpReLU, L1L2Ratio, SparseAutoencoder, objective
from lightsae.sae.selection.jumprelu import SparseEncoded

from ..helpers import assert_close

D_IN, D_SAE, ROWS = 6, 24, 31


def autoencoder(eps: float = 0.8, multiplier: float = 0.3) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    sae = SparseAutoencoder(D_IN, D_SAE, JumpReLU(3), "none").double()
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        parameter = getattr(sae, name)
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator).double() * 0.7)
    rule = rule_of(sae)
    rule.threshold.data.uniform_(-0.2, 2.0, generator=generator)
    rule.eps.fill_(eps)
    rule.multiplier.fill_(multiplier)
    # Nothing to be corrected from a batch before.
    rule.excess.fill_(0.0)
    return sae


def rule_of(sae: SparseAutoencoder) -> JumpReLU:
    assert isinstance(sae.selection, JumpReLU)
    return sae.selection


def dense_threshold_gradient(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """The formulas of arXiv 2407.14435 over all pairs of sample and latent."""
    rule = rule_of(sae)
    theta, eps = rule.threshold.detach().double().clamp_min(0), float(rule.eps)
    z = torch.relu((x - sae.b_dec) @ sae.W_enc.T + sae.b_enc).detach()
    code = torch.where(z > theta, z, 0.0)
    residual = x - code @ sae.W_dec.detach() - sae.b_dec.detach()
    upstream = -2 * (residual @ sae.W_dec.detach().T) / len(x)
    K = ((z > 0) & ((z - theta).abs() < eps / 2)).double()
    of_values = -(theta / eps) * K * upstream
    of_l0 = -K / eps * float(rule.multiplier) / rule.k / len(x)
    gradient = (of_values + of_l0).sum(dim=0)
    # A threshold below 0 counts as 0, and moves no further.
    return torch.where(rule.threshold.detach() >= 0, gradient, 0.0)


@pytest.mark.parametrize("eps", [0.1, 0.8, 5.0])
@pytest.mark.parametrize("multiplier", [0.0, 0.3, -0.2])
def test_thresholds_have_the_straight_through_gradient(eps: float, multiplier: float) -> None:
    sae = autoencoder(eps, multiplier)
    x = torch.randn(ROWS, D_IN, generator=torch.Generator().manual_seed(1)).double()
    wanted = dense_threshold_gradient(sae, x)
    (found,) = torch.autograd.grad(objective(sae, x).loss, rule_of(sae).threshold)
    # Thresholds are float32.
    assert_close("d threshold", found, wanted, 1e-6)
    assert wanted.count_nonzero() > 3


def test_the_loss_holds_lambda_times_l0_over_k() -> None:
    sae = autoencoder(multiplier=0.3)
    parts = objective(sae, torch.randn(ROWS, D_IN).double())
    l0 = (parts.encoded.values > 0).sum() / ROWS
    assert parts.sparsity is not None
    torch.testing.assert_close(parts.sparsity.detach(), 0.3 * l0.double() / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close(parts.loss, parts.reconstruction + parts.sparsity)


def test_an_activation_at_its_threshold_is_off() -> None:
    rule = JumpReLU(1)
    rule.build(2)
    rule.threshold.data.copy_(torch.tensor([2.0, 1.0]))
    encoder = torch.eye(2), torch.zeros(2), torch.zeros(2)
    found = rule.inference().encode(torch.tensor([[2.0, 1.5]]), encoder)
    assert found.values.tolist() == [[1.5]] and found.indices.tolist() == [[1]]


def test_the_first_batch_sets_the_thresholds_to_k_a_row() -> None:
    torch.manual_seed(0)
    sae = SparseAutoencoder(D_IN, D_SAE, JumpReLU(3))
    parts = objective(sae, torch.randn(100, D_IN))
    assert (parts.encoded.values > 0).sum() == 300
    assert rule_of(sae).threshold.unique().numel() == 1 and rule_of(sae).eps > 0


def test_thresholds_that_are_there_are_kept() -> None:
    sae = autoencoder()
    rule = rule_of(sae)
    rule.eps.fill_(0.0)
    before = rule.threshold.detach().clone()
    objective(sae, torch.randn(ROWS, D_IN).double())
    assert torch.equal(rule.threshold.detach(), before)
    assert float(rule.eps) == pytest.approx(0.5 * float(before.clamp_min(0).mean()))


def test_thresholds_of_which_none_is_positive_begin_anew() -> None:
    sae = autoencoder()
    rule = rule_of(sae)
    rule.threshold.data.fill_(-0.5)
    rule.eps.fill_(0.0)
    parts = objective(sae, torch.randn(ROWS, D_IN).double())
    assert (parts.encoded.values > 0).sum() == 3 * ROWS
    assert rule.eps > 0 and torch.autograd.grad(parts.loss, rule.threshold)[0].any()


@pytest.mark.parametrize("batch", ["without gradients", "empty"])
def test_a_batch_that_says_nothing_moves_nothing(batch: str) -> None:
    sae, x = autoencoder(), torch.randn(ROWS, D_IN).double()
    objective(sae, x)
    rule_of(sae).excess.fill_(0.0)
    rule_of(sae).fired.fill_(True)
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    with torch.set_grad_enabled(batch == "empty"):
        objective(sae, x[:0] if batch == "empty" else x)
    assert all(torch.equal(before[name], tensor) for name, tensor in sae.state_dict().items())


def test_the_gradient_is_of_the_thresholds_that_a_batch_was_encoded_with() -> None:
    """Whatever the next batch has moved before it is made."""
    first, second = torch.randn(2, ROWS, D_IN).double()
    alone, together = autoencoder(), autoencoder()
    wanted = sum(
        torch.autograd.grad(objective(alone, x).loss, rule_of(alone).threshold)[0]
        for x in (first, second)
    )
    loss = objective(together, first).loss + objective(together, second).loss
    (found,) = torch.autograd.grad(loss, rule_of(together).threshold)
    torch.testing.assert_close(found, wanted)


# Torch looks for it on tensors that one graph hands to the next.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_graph_has_the_gradient_of_thresholds_that_the_controller_moves_behind_it() -> None:
    sae, x = autoencoder(), torch.randn(ROWS, D_IN).double()
    rule, encoder = rule_of(sae), sae.encoder

    def loss() -> Tensor:
        encoded = rule.encode(x, encoder)
        assert isinstance(encoded, SparseEncoded)
        return encoded.sparsity + encoded.values.sum()

    before = {name: tensor.clone() for name, tensor in rule.state_dict().items()}
    (wanted,) = torch.autograd.grad(loss(), rule.threshold)
    rule.load_state_dict(before)
    (found,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(), rule.threshold)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("fires", ["too often", "too rarely"])
def test_lambda_and_thresholds_move_against_the_excess(fires: str) -> None:
    sae = autoencoder(multiplier=0.0)
    rule, x = rule_of(sae), torch.randn(ROWS, D_IN).double()
    rule.k = 1 if fires == "too often" else 20
    before = rule.threshold.detach().clone()
    objective(sae, x)
    assert torch.equal(rule.threshold.detach(), before), "they move with the next batch"
    objective(sae, x)
    moved, fired = rule.threshold.detach() - before, rule.fired
    if fires == "too often":
        assert rule.multiplier > 0 and (moved[fired & (before > 0)] > 0).all()
    else:
        assert rule.multiplier < 0 and (moved[before > 0] < 0).all()


@pytest.mark.parametrize("regularizer", [None, L1L2Ratio(1e-3)], ids=["plain", "reg2"])
def test_training_reaches_its_l0_within_five_percent(regularizer: Any) -> None:
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(24, 12), dim=1)
    active = (torch.rand(4000, 24) < 0.15) * torch.rand(4000, 24)
    x = active @ directions + 0.05 * torch.randn(4000, 12)
    sae = SparseAutoencoder(12, 48, JumpReLU(5))
    sae.initialize_(x)
    optimizer = torch.optim.Adam(sae.parameters(), 2e-3)
    for _ in range(400):
        batch = sae.normalize(x[torch.randint(4000, (256,))]).x
        objective(sae, batch, regularizer=regularizer).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        sae.normalize_decoder_()
    assert sae.encode(x).l0().float().mean() == pytest.approx(5, rel=0.05)


def test_a_gradient_of_thresholds_stays_in_their_dtype() -> None:
    sae = autoencoder()
    objective(sae, torch.randn(ROWS, D_IN).double()).loss.backward()
    gradient = rule_of(sae.to(torch.bfloat16)).threshold.grad
    assert gradient is not None and gradient.dtype == torch.float32 and gradient.any()


@pytest.mark.parametrize("name", ["bandwidth", "controller_rate"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(LightsaeError, match=f"{name} must be positive and finite"):
        JumpReLU(4, **{name: value})
