"""Every part of the loss, and its gradient for every parameter, against the paper's formulas.

The formulas stand here a second time, dense and in float64, and share no code with the package.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightsae.sae import AuxK, L1L2Ratio, Objective, OffSupportL1, SparseAutoencoder, objective
from lightsae.sae.regularizers import Regularizer

from ..helpers import assert_close, untied

PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec")
K_AUX = 3
SHAPES = {
    "B41-D12-N96-K5": (41, 12, 96, 5),
    "B1-D5-N33-K4": (1, 5, 33, 4),
    "B7-D3-N6-K6": (7, 3, 6, 6),
    "B9-D4-N1-K1": (9, 4, 1, 1),
    "B6-D1-N20-K2": (6, 1, 20, 2),
}
REGULARIZERS: dict[str, Regularizer | None] = {
    "none": None,
    "reg1": OffSupportL1(0.3),
    "reg1-unmasked": OffSupportL1(0.3, batch_active_only=False),
    "reg2": L1L2Ratio(0.2),
    "reg2-unmasked": L1L2Ratio(0.2, batch_active_only=False),
}


def paper(
    leaves: dict[str, Tensor],
    x: Tensor,
    k: int,
    regularizer: str,
    dead: Tensor,
    indices: Tensor | None = None,
) -> dict[str, Tensor]:
    """The parts of the loss as arXiv 2606.27321 writes them."""
    a = torch.relu((x - leaves["b_dec"]) @ leaves["W_enc"].T + leaves["b_enc"])
    order = a.argsort(dim=1, descending=True, stable=True) if indices is None else indices
    support = torch.zeros_like(a).index_put(
        (torch.arange(len(x)).unsqueeze(1), order[:, :k]), torch.tensor(1.0, dtype=a.dtype)
    )
    z = a * support
    x_hat = z @ leaves["W_dec"] + leaves["b_dec"]
    mu = support.amax(dim=0)
    if "unmasked" in regularizer:
        mu = torch.ones_like(mu)
    parts = {
        "reconstruction": (x - x_hat).pow(2).sum(dim=1).mean(),
        "aux_k": paper_aux_k(leaves, a, (x - x_hat).detach(), dead),
        "penalty": paper_penalty(regularizer, a, z, mu),
    }
    weight = {"none": 0.0, "reg1": 0.3, "reg2": 0.2}[regularizer.removesuffix("-unmasked")]
    parts["loss"] = parts["reconstruction"] + parts["aux_k"] / 32 + weight * parts["penalty"]
    return parts


def paper_penalty(regularizer: str, a: Tensor, z: Tensor, mu: Tensor) -> Tensor:
    if regularizer.startswith("reg1"):
        return (mu * (a - z)).abs().sum(dim=1).mean()
    if regularizer.startswith("reg2"):
        masked = mu * a
        rows = masked[(masked > 0).any(dim=1)]
        return (rows.sum(dim=1) / (rows.pow(2).sum(dim=1).sqrt() + 1e-8)).sum() / len(a)
    return a.sum() * 0


def paper_aux_k(leaves: dict[str, Tensor], a: Tensor, e: Tensor, dead: Tensor) -> Tensor:
    variance = (e - e.mean(dim=0)).pow(2).sum(dim=1).mean()
    if not dead.any() or variance == 0:
        return a.sum() * 0
    ranked = torch.where(dead, a, -1.0).argsort(dim=1, descending=True, stable=True)
    chosen = torch.zeros_like(a).scatter(1, ranked[:, : min(K_AUX, int(dead.sum()))], 1.0)
    e_hat = (a * chosen) @ leaves["W_dec"]
    return (e - e_hat).pow(2).sum(dim=1).mean() / variance


def ours(sae: SparseAutoencoder, x: Tensor, regularizer: str, dead: Tensor) -> Objective:
    return objective(
        sae,
        x,
        regularizer=REGULARIZERS[regularizer],
        aux_k=AuxK(k_aux=K_AUX),
        dead=lambda encoded: dead,
    )


def assert_equals_paper(
    sae: SparseAutoencoder,
    x: Tensor,
    regularizer: str,
    dead: Tensor,
    tolerance: float,
    part: str = "loss",
) -> None:
    """One part and its gradients against the paper's, at the support that was selected."""
    parts = ours(sae, x, regularizer, dead)
    exact = sae.W_enc.dtype == torch.float64
    leaves = {n: p.detach().double().requires_grad_() for n, p in sae.named_parameters()}
    support = None if exact else parts.encoded.indices
    expected = paper(leaves, x.double(), sae.selection.k, regularizer, dead, support)[part]
    actual = getattr(parts, part)
    assert_close(part, actual, expected, tolerance)
    wanted = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)
    if actual.requires_grad:
        found = torch.autograd.grad(actual, list(sae.parameters()), allow_unused=True)
    else:
        found = (None,) * len(wanted)
    for name, have, want in zip(leaves, found, wanted, strict=True):
        want = torch.zeros_like(leaves[name]) if want is None else want
        assert_close(f"d{part} / d{name}", have, want, tolerance)


def every_third(d_sae: int) -> Tensor:
    return torch.arange(d_sae) % 3 == 0


def batch(B: int, d_in: int, seed: int = 1) -> Tensor:
    return torch.randn(B, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("part", ["reconstruction", "aux_k", "penalty", "loss"])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_part_and_gradient_is_the_papers(
    shape: tuple[int, int, int, int], regularizer: str, part: str
) -> None:
    B, d_in, d_sae, k = shape
    sae = untied(d_in, d_sae, k)
    assert_equals_paper(sae, batch(B, d_in), regularizer, every_third(d_sae), 1e-10, part)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_float32_is_within_1e_5_at_the_same_support(
    shape: tuple[int, int, int, int], regularizer: str
) -> None:
    B, d_in, d_sae, k = shape
    sae = untied(d_in, d_sae, k).float()
    assert_equals_paper(sae, batch(B, d_in).float(), regularizer, every_third(d_sae), 1e-5)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    k=st.integers(1, 9),
    seed=st.integers(0, 999),
    regularizer=st.sampled_from(sorted(REGULARIZERS)),
)
@settings(max_examples=60, deadline=None)
def test_ties_and_rows_without_k_positives_change_nothing(
    shape: tuple[int, int, int], k: int, seed: int, regularizer: str
) -> None:
    B, d_in, d_sae = shape
    sae = untied(d_in, d_sae, min(k, d_sae), seed=seed, grid=0.5)
    x = (batch(B, d_in, seed) * 2).round() / 2
    assert_equals_paper(sae, x, regularizer, every_third(d_sae), 1e-10)


def identity_sae(k: int) -> SparseAutoencoder:
    """a = ReLU(x): four latents that can be read off the input."""
    sae = SparseAutoencoder(4, 4, untied(4, 4, k).selection).double()
    sae.W_enc.data, sae.W_dec.data = torch.eye(4).double(), untied(4, 4, k).W_dec.data
    return sae


DEAD_BUT_SELECTED = torch.tensor(
    [[-1.0, -1, -1, -1], [0.1, 3, 2, -1], [0.2, 2, 3, 1]], dtype=torch.float64
)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_latent_is_dead_and_batch_active_through_a_zero_fill_in(regularizer: str) -> None:
    sae, dead = identity_sae(k=2), torch.tensor([True, False, False, False])
    encoded = ours(sae, DEAD_BUT_SELECTED, regularizer, dead).encoded
    assert encoded.batch_active.tolist() == [True, True, True, False]
    assert not (encoded.values[encoded.indices == 0] > 0).any(), "latent 0 never fires"
    assert_equals_paper(sae, DEAD_BUT_SELECTED, regularizer, dead, 1e-10)


def test_both_rules_then_reach_the_encoder_of_that_latent() -> None:
    sae, dead = identity_sae(k=2), torch.tensor([True, False, False, False])
    for part in ("aux_k", "penalty"):
        value = getattr(ours(sae, DEAD_BUT_SELECTED, "reg1", dead), part)
        (grad,) = torch.autograd.grad(value, sae.b_enc)
        assert grad[0] != 0, f"{part} leaves the dead latent alone"


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_regularizers_never_reach_the_decoder(regularizer: str) -> None:
    sae = untied(6, 30, 3)
    parts = ours(sae, batch(20, 6), regularizer, every_third(30))
    if parts.penalty.requires_grad:
        (grad,) = torch.autograd.grad(parts.penalty, sae.W_dec, allow_unused=True)
        assert grad is None or not grad.any()
    else:
        assert regularizer == "none"


def test_the_gradient_of_the_input_is_the_papers() -> None:
    sae, dead = untied(6, 30, 3), torch.zeros(30, dtype=torch.bool)
    x, same_x = (batch(20, 6).requires_grad_() for _ in range(2))
    leaves = {name: p.detach() for name, p in sae.named_parameters()}
    (found,) = torch.autograd.grad(ours(sae, x, "reg2", dead).loss, x)
    (wanted,) = torch.autograd.grad(paper(leaves, same_x, 3, "reg2", dead)["loss"], same_x)
    assert_close("dloss / dx", found, wanted, 1e-10)


def test_parts_that_were_not_asked_for_are_zero() -> None:
    sae, x = untied(6, 30, 3), batch(20, 6)
    parts = objective(sae, x)
    assert parts.aux_k == 0 and parts.penalty == 0
    assert torch.equal(parts.loss, parts.reconstruction)


def test_the_dead_are_counted_before_aux_k_uses_them() -> None:
    sae, x, seen = untied(6, 30, 3), batch(20, 6), []

    def count(encoded: Any) -> Tensor:
        seen.append(encoded)
        return ~encoded.batch_active

    parts = objective(sae, x, aux_k=AuxK(k_aux=K_AUX), dead=count)
    assert seen == [parts.encoded]
    assert parts.aux_k > 0
    assert objective(sae, x, dead=count).aux_k == 0, "counted, but AuxK is off"
    assert len(seen) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_a_narrow_module_has_a_float32_loss_and_finite_gradients(dtype: torch.dtype) -> None:
    sae = untied(6, 30, 3).to(dtype)
    x = batch(3000, 6).mul(30).to(dtype)
    parts = ours(sae, x, "reg1", every_third(30))
    parts.loss.backward()
    assert parts.reconstruction.dtype == parts.aux_k.dtype == parts.penalty.dtype == torch.float32
    assert parts.reconstruction > torch.finfo(torch.float16).max / 30
    for name, parameter in sae.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_a_narrow_module_follows_the_paper_to_its_precision(dtype: torch.dtype) -> None:
    sae = untied(12, 40, 5).to(dtype)
    assert_equals_paper(
        sae, batch(64, 12).to(dtype), "reg2", torch.zeros(40).bool(), 12 * eps(dtype)
    )


def eps(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).eps)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_an_empty_batch_costs_nothing_and_moves_nothing(regularizer: str) -> None:
    sae = untied(6, 30, 3)
    parts = ours(sae, batch(0, 6), regularizer, every_third(30))
    parts.loss.backward()
    assert parts.loss == 0
    assert not parts.encoded.batch_active.any()
    assert all(p.grad is None or not p.grad.any() for p in sae.parameters())


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_strides_of_the_batch_do_not_matter(regularizer: str) -> None:
    sae, x = untied(6, 30, 3), batch(12, 20)
    strided = x[::2, ::2].t()[:, :6]
    assert not strided.is_contiguous()
    dead = every_third(30)
    # BLAS chooses its kernel by strides, and with it the order of sums.
    torch.testing.assert_close(
        ours(sae, strided, regularizer, dead).loss,
        ours(sae, strided.contiguous(), regularizer, dead).loss,
        rtol=1e-13, atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_without_a_graph_the_numbers_are_the_same(
    regularizer: str, context: Callable[[], Any]
) -> None:
    sae, x, dead = untied(6, 30, 3), batch(20, 6), every_third(30)
    with context():
        quiet = ours(sae, x, regularizer, dead)
    loud = ours(sae, x, regularizer, dead)
    assert not quiet.loss.requires_grad and loud.loss.requires_grad
    assert torch.equal(quiet.loss, loud.loss)
