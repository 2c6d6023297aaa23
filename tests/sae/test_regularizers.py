"""A fused regularizer and its dense form are one penalty; a user writes another in ten lines."""

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from lightsae_kernels import FusedRegularizer
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import L1L2Ratio, OffSupportL1, Regularizer, SparseAutoencoder, objective

from .helpers import assert_close, untied


class DenseOffSupportL1(OffSupportL1):
    fused: ClassVar[FusedRegularizer | None] = None


class DenseL1L2Ratio(L1L2Ratio):
    fused: ClassVar[FusedRegularizer | None] = None


PAIRS = [(OffSupportL1, DenseOffSupportL1), (L1L2Ratio, DenseL1L2Ratio)]
SHAPES = [(23, 6, 40, 4), (1, 5, 9, 2), (6, 3, 7, 7), (8, 4, 1, 1), (0, 3, 7, 2)]


def batch(B: int, d_in: int) -> Tensor:
    return torch.randn(B, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def penalty_and_gradients(
    sae: SparseAutoencoder, x: Tensor, regularizer: Regularizer
) -> dict[str, Tensor]:
    sae.zero_grad()
    x = x.clone().requires_grad_()
    parts = objective(sae, x, regularizer=regularizer)
    parts.loss.backward()
    found = {"loss": parts.loss.detach(), "penalty": parts.penalty.detach(), "dx": x.grad}
    found |= {f"d{name}": p.grad for name, p in sae.named_parameters()}
    return {name: t for name, t in found.items() if t is not None}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-D{}-N{}-K{}".format(*s))
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize(("fused", "dense"), PAIRS, ids=["reg1", "reg2"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
def test_fused_and_dense_are_one_penalty(
    fused: type[Regularizer],
    dense: type[Regularizer],
    masked: bool,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    B, d_in, d_sae, k = shape
    sae, x = untied(d_in, d_sae, k).to(dtype), batch(B, d_in).to(dtype)
    wanted = penalty_and_gradients(sae, x, dense(0.3, masked))
    found = penalty_and_gradients(sae, x, fused(0.3, masked))
    assert found.keys() == wanted.keys() > {"loss", "dx", "dW_enc", "db_enc", "dW_dec", "db_dec"}
    for name, expected in wanted.items():
        assert_close(name, found[name], expected, tolerance)


@pytest.mark.parametrize("regularizer", [OffSupportL1(1.0), L1L2Ratio(1.0)], ids=["reg1", "reg2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_narrow_activations_are_summed_in_float32(
    regularizer: Regularizer, dtype: torch.dtype
) -> None:
    a = torch.full((2, 40_000), 2.0, dtype=dtype)
    penalty = regularizer.penalty(a, torch.tensor([[0], [0]]), torch.ones(40_000).bool())
    assert penalty.dtype == torch.float32
    expected = 2 * 39_999 if isinstance(regularizer, OffSupportL1) else 200
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_off_support_l1_gives_selected_units_no_gradient() -> None:
    a = torch.tensor([[3.0, 2.0, 1.0, 0.0]], requires_grad=True)
    mask = torch.tensor([True, True, False, True])
    (grad,) = torch.autograd.grad(OffSupportL1(1.0).penalty(a, torch.tensor([[0]]), mask), a)
    assert grad[0, :3].tolist() == [0, 1, 0]


def test_l1_l2_ratio_pushes_large_units_up_and_small_ones_down() -> None:
    a = torch.tensor([[4.0, 1.0, 1.0]], requires_grad=True)
    penalty = L1L2Ratio(1.0).penalty(a, torch.tensor([[0]]), torch.ones(3).bool())
    (grad,) = torch.autograd.grad(penalty, a)
    assert grad[0, 0] < 0 < grad[0, 1]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_l1_l2_ratio_does_not_see_the_size_of_the_activations(scale: float) -> None:
    a = scale * torch.tensor([[4.0, 3.0]], dtype=torch.float64)
    penalty = L1L2Ratio(1.0, eps=1e-30).penalty(a, torch.tensor([[0]]), torch.ones(2).bool())
    assert penalty.item() == pytest.approx(7 / 5)


@pytest.mark.parametrize("regularizer", [L1L2Ratio, DenseL1L2Ratio], ids=["fused", "dense"])
def test_a_row_without_a_positive_unit_counts_0_with_no_gradient(
    regularizer: type[Regularizer],
) -> None:
    sae = untied(3, 5, 2)
    sae.b_enc.data.fill_(-100.0)
    found = penalty_and_gradients(sae, batch(4, 3), regularizer(1.0))
    assert found["penalty"] == 0
    assert not found["dW_enc"].any() and not found["db_enc"].any()


class SquaredOffSupport(Regularizer):
    """What a user writes."""

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        dropped = a.scatter(1, indices, 0.0) * batch_active
        return dropped.square().sum(dim=1).mean()


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_a_users_regularizer_trains_an_autoencoder(masked: bool) -> None:
    sae, x = untied(6, 40, 4), batch(23, 6)
    found = penalty_and_gradients(sae, x, SquaredOffSupport(0.7, masked))

    leaves = {name: p.detach().requires_grad_() for name, p in sae.named_parameters()}
    a = ((x - leaves["b_dec"]) @ leaves["W_enc"].T + leaves["b_enc"]).relu()
    support = torch.zeros_like(a).scatter(1, a.topk(4, dim=1).indices, 1.0)
    mu = support.amax(dim=0) if masked else torch.ones(40)
    penalty = (mu * a * (1 - support)).pow(2).sum(dim=1).mean()
    x_hat = (a * support) @ leaves["W_dec"] + leaves["b_dec"]
    loss = (x - x_hat).pow(2).sum(dim=1).mean() + 0.7 * penalty
    loss.backward()

    assert_close("penalty", found["penalty"], penalty.detach(), 1e-10)
    assert_close("loss", found["loss"], loss.detach(), 1e-10)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert_close(f"d{name}", found[f"d{name}"], leaf.grad, 1e-10)


def test_a_users_penalty_is_not_replaced_by_a_fused_one_it_inherits() -> None:
    class Doubled(OffSupportL1):
        def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
            return 2 * super().penalty(a, indices, batch_active)

    sae, x = untied(6, 40, 4), batch(23, 6)
    once = objective(sae, x, regularizer=OffSupportL1(1.0)).penalty
    twice = objective(sae, x, regularizer=Doubled(1.0)).penalty
    assert_close("penalty", twice.detach(), 2 * once.detach(), 1e-12)


def test_a_subclass_that_changes_no_penalty_stays_fused() -> None:
    class Preset(OffSupportL1):
        def __init__(self) -> None:
            super().__init__(0.5)

    assert Preset.fused == "off_support_l1"


@pytest.mark.parametrize("make", [OffSupportL1, L1L2Ratio, SquaredOffSupport])
@pytest.mark.parametrize("weight", [-1e-9, float("nan"), float("inf")])
def test_the_weight_is_a_finite_number_of_at_least_0(
    make: Callable[[float], Regularizer], weight: float
) -> None:
    with pytest.raises(LightsaeError, match="weight must be at least 0 and finite, got"):
        make(weight)
    assert make(0.0).weight == 0


@pytest.mark.parametrize("eps", [0.0, -1e-8, float("nan"), float("inf")])
def test_eps_is_positive(eps: float) -> None:
    with pytest.raises(LightsaeError, match="eps must be positive and finite, got"):
        L1L2Ratio(0.1, eps=eps)


def test_a_regularizer_without_a_penalty_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="penalty"):
        Regularizer(0.1)  # type: ignore[abstract]
