"""What every selection rule must do, whatever it selects."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.sae import (
    AuxK,
    BatchTopK,
    JumpReLU,
    L1L2Ratio,
    Selection,
    SparseAutoencoder,
    TopK,
    aux_k_loss,
    objective,
)
from lightsae.sae.regularizers import Regularizer
from lightsae.sae.selection import SELECTIONS

from ..helpers import assert_close
from .dense_rules import (
    D_IN,
    D_SAE,
    RECONSTRUCTIONS,
    REGULARIZERS,
    ROWS,
    RULES,
    K,
    activations,
    dense_parts,
    dense_penalty,
    support_of,
)

PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec")
LOSSES = [
    (rule, loss) for rule in RULES for loss in RECONSTRUCTIONS if rule == "TopK" or loss != "multi"
]


def autoencoder(rule: str, *, subtracts: bool = True, seed: int = 0) -> SparseAutoencoder:
    """Float64, untied, nothing at its initial value; thresholds where a few latents exceed them."""
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(D_IN, D_SAE, RULES[rule](), "none", apply_b_dec_to_input=subtracts)
    sae = sae.double()
    for name in PARAMETERS:
        parameter = getattr(sae, name)
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(0.7 * drawn)
    if isinstance(sae.selection, JumpReLU):
        sae.selection.threshold.data.uniform_(0.5, 3.0, generator=generator)
        sae.selection.eps.fill_(0.8)
    return sae


def batch(rows: int = ROWS, seed: int = 1) -> Tensor:
    return torch.randn(rows, D_IN, generator=torch.Generator().manual_seed(seed)).double()


def dense_leaves(sae: SparseAutoencoder) -> dict[str, Tensor]:
    return {name: getattr(sae, name).detach().clone().requires_grad_() for name in PARAMETERS}


def test_every_rule_that_a_file_can_name_is_held_to_this() -> None:
    assert set(RULES) == set(SELECTIONS)


@pytest.mark.parametrize("subtracts", [True, False], ids=["subtracts", "does-not"])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize(("rule", "loss"), LOSSES)
def test_losses_and_gradients_are_those_of_dense_matrices_at_the_same_support(
    rule: str, loss: str, regularizer: str, subtracts: bool
) -> None:
    sae, x = autoencoder(rule, subtracts=subtracts), batch()
    parts = objective(
        sae, x, regularizer=REGULARIZERS[regularizer], reconstruction=RECONSTRUCTIONS[loss]
    )
    leaves = dense_leaves(sae)
    wanted = dense_parts(sae, leaves, x, regularizer, loss)
    for part in ("reconstruction", "penalty"):
        assert_close(part, getattr(parts, part).detach(), wanted[part].detach(), 1e-12)
        if not getattr(parts, part).requires_grad:
            continue
        ours = torch.autograd.grad(
            getattr(parts, part), [getattr(sae, name) for name in PARAMETERS], retain_graph=True,
            allow_unused=True,
        )  # fmt: skip
        theirs = torch.autograd.grad(
            wanted[part], list(leaves.values()), retain_graph=True, allow_unused=True
        )
        for name, one, other in zip(PARAMETERS, ours, theirs, strict=True):
            expected = torch.zeros_like(leaves[name]) if other is None else other
            assert_close(f"d {part} / d {name}", one, expected, 1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_dead_latents_are_revived_under_every_rule(rule: str) -> None:
    sae, x, dead = autoencoder(rule), batch(), torch.arange(D_SAE) < 8
    parts = objective(sae, x, aux_k=AuxK(k_aux=3), dead=lambda encoded: dead)
    alone = aux_k_loss(sae, x, parts.residual, dead, 3)
    assert parts.aux_k > 0 and torch.equal(parts.aux_k, alone)
    gradient = torch.autograd.grad(parts.aux_k, sae.W_enc)[0]
    assert gradient[:8].any() and not gradient[8:].any()


@pytest.mark.parametrize("rule", RULES)
def test_a_users_penalty_sees_the_support_of_the_rule(rule: str) -> None:
    seen: dict[str, Tensor] = {}

    class OffSupport(Regularizer):
        def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
            seen["off"] = a.scatter(1, indices, 0.0).detach()
            seen["mask"] = batch_active
            return a.sum()

    sae, x = autoencoder(rule), batch()
    objective(sae, x, regularizer=OffSupport(0.1))
    a = activations(sae, dense_leaves(sae), x).detach()
    support = support_of(sae.selection, a)
    torch.testing.assert_close(seen["off"], a * ~support)
    assert torch.equal(seen["mask"], support.any(dim=0))


@pytest.mark.parametrize("rule", RULES)
def test_another_k_keeps_the_largest_of_each_row_whatever_the_rule(rule: str) -> None:
    sae, x = autoencoder(rule), batch()
    code = sae.encode(x, k=5)
    a = activations(sae, dense_leaves(sae), x).detach()
    assert torch.equal(code.indices, a.argsort(dim=1, descending=True, stable=True)[:, :5])
    assert sae.selection.k == RULES[rule]().k or rule == "BankTopK"


@pytest.mark.parametrize("regularizer", ["reg1", "reg2-unmasked"])
@pytest.mark.parametrize("rule", RULES)
def test_a_regularizer_counts_at_another_k_too(rule: str, regularizer: str) -> None:
    sae, x = autoencoder(rule), batch()
    found = sae.encode_scaled(x, k=5, regularizer=REGULARIZERS[regularizer])
    a = activations(sae, dense_leaves(sae), x).detach()
    wanted = dense_penalty(regularizer, a, support_of(TopK(5), a))
    torch.testing.assert_close(found.penalty.detach(), wanted)


@pytest.mark.parametrize("regularizer", ["reg1", "reg1-unmasked", "reg2", "reg2-unmasked"])
@pytest.mark.parametrize("rule", RULES)
def test_gradients_can_be_made_twice(rule: str, regularizer: str) -> None:
    sae = autoencoder(rule)
    parts = objective(sae, batch(), regularizer=REGULARIZERS[regularizer])
    first, second = (
        torch.autograd.grad(parts.loss, sae.W_enc, retain_graph=True)[0] for _ in range(2)
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("rule", "loss"), LOSSES)
def test_an_empty_batch_costs_and_teaches_nothing(rule: str, loss: str) -> None:
    sae = autoencoder(rule)
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    parts = objective(
        sae, batch()[:0], regularizer=L1L2Ratio(0.1), reconstruction=RECONSTRUCTIONS[loss]
    )
    parts.loss.backward()
    assert parts.loss == 0
    assert all(p.grad is None or not p.grad.any() for p in sae.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in sae.state_dict().items())


@pytest.mark.parametrize(("rule", "loss"), LOSSES)
def test_products_in_bfloat16_give_nearly_the_losses_of_float32(rule: str, loss: str) -> None:
    torch.manual_seed(0)
    wide = autoencoder(rule).float()
    mixed, x = copy.deepcopy(wide), batch(60).float()
    settings: dict[str, Any] = {
        "regularizer": L1L2Ratio(0.1), "reconstruction": RECONSTRUCTIONS[loss]
    }  # fmt: skip
    wanted = objective(wide, x, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective(mixed, x, **settings)
    for one, other in zip(found[:4], wanted[:4], strict=True):
        # Bfloat16 has 8 bits; a support that flips at a near-tie changes the loss hardly.
        torch.testing.assert_close(one.detach(), other.detach(), rtol=2e-2, atol=1e-3)
    found.loss.backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in mixed.parameters())


@pytest.mark.parametrize("rule", RULES)
def test_codes_of_new_inputs_descend_along_a_row(rule: str) -> None:
    values = autoencoder(rule).encode(batch(200)).values
    assert (values.diff(dim=1) <= 0).all() and (values >= 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_the_codes_of_rows_do_not_depend_on_their_batch_once_trained(rule: str) -> None:
    sae, x = autoencoder(rule), batch(40)
    objective(sae, x).loss.backward()
    whole = sae.encode(x).to_dense()
    alone = torch.cat([sae.encode(row.unsqueeze(0)).to_dense() for row in x])
    torch.testing.assert_close(alone, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_a_folder_gives_the_same_codes_back(rule: str, dtype: torch.dtype, tmp_path: Path) -> None:
    sae, x = autoencoder(rule).to(dtype), batch(50).to(dtype)
    objective(sae, x).loss.backward()
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    assert type(loaded.selection) is type(sae.selection)
    assert loaded.selection.settings() == sae.selection.settings()
    assert torch.equal(loaded.encode(x).to_dense(), sae.encode(x).to_dense())
    assert loaded.state_dict().keys() == sae.state_dict().keys()


@pytest.mark.parametrize("rule", RULES)
def test_an_autoencoder_has_its_own_copy_of_a_rule_that_learns(rule: str) -> None:
    given = RULES[rule]()
    first, second = (SparseAutoencoder(D_IN, D_SAE, given) for _ in range(2))
    if isinstance(given, nn.Module):
        assert first.selection is not given and first.selection is not second.selection
    assert isinstance(first.selection, Selection)


@pytest.mark.parametrize("rule", ["BatchTopK", "JumpReLU"])
def test_what_a_rule_learns_stays_in_float32(rule: str) -> None:
    sae = autoencoder(rule)
    threshold = sae.selection.threshold.detach().clone()  # type: ignore[attr-defined]
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        kept = sae.to(dtype).selection.threshold  # type: ignore[attr-defined]
        assert kept.dtype == torch.float32 and torch.equal(kept.detach(), threshold)
        assert sae.W_enc.dtype == dtype


@pytest.mark.parametrize("rule", RULES)
def test_inference_trains_nothing(rule: str) -> None:
    sae = autoencoder(rule).eval()
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    objective(sae, batch())
    sae.encode(batch())
    assert all(torch.equal(before[name], tensor) for name, tensor in sae.state_dict().items())


@pytest.mark.parametrize("rule", RULES)
def test_k_must_be_positive(rule: str) -> None:
    settings: dict[str, Any] = RULES[rule]().settings()
    for name in {"k", "keep"} & settings.keys():
        with pytest.raises(LightsaeError, match=f"{name} must be an integer of at least 1, got 0"):
            SELECTIONS[rule](**{**settings, name: 0})


@pytest.mark.parametrize("rule", RULES)
def test_k_may_not_exceed_the_dictionary(rule: str) -> None:
    if rule == "BankTopK":
        pytest.skip("its k follows from the dictionary")
    with pytest.raises(LightsaeError, match=r"k = 30 .*d_sae = 24"):
        SparseAutoencoder(D_IN, D_SAE, SELECTIONS[rule](k=30))


def test_the_rules_with_a_threshold_are_those_that_may_fill_rows_unequally() -> None:
    for rule in RULES:
        sae = autoencoder(rule)
        fired = (objective(sae, batch(300)).encoded.values > 0).sum(dim=1)
        learns = isinstance(sae.selection, BatchTopK | JumpReLU)
        assert (int(fired.max()) > sae.selection.k) == learns
        assert learns or sae.selection.k >= K
