"""Screening changes which product finds the candidates, never which latents are selected."""

import pytest
import torch
from lightsae_kernels import encode_topk, reference
from lightsae_kernels.cpu import bf16_screen
from lightsae_kernels.cpu.bf16_screen import Screen, screened_topk
from lightsae_kernels.types import Encoder


def operands(
    B: int, D: int, N: int, seed: int = 0, bias: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, D, generator=generator)
    W = torch.randn(N, D, generator=generator) / D**0.5
    return x, W, bias * torch.randn(N, generator=generator)


def assert_exact(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor, k: int) -> None:
    values, indices = screened_topk(x, Encoder(W, b), k)
    z = torch.addmm(b.double(), x.double(), W.double().t()).relu()
    expected = reference.select_topk(z, k)
    # Float32 sums differ in their last bits: values within them may change places.
    rounding = 1e-6 * (x.double().norm(dim=1, keepdim=True) * W.double().norm(dim=1).amax() + 1e-30)
    assert ((z.gather(1, indices) - z.gather(1, expected)).abs() <= rounding).all()
    assert ((values.double() - z.gather(1, indices)).abs() <= rounding).all()
    assert (values[:, :-1] >= values[:, 1:]).all()
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize(
    ("B", "D", "N", "k"),
    [(1, 1, 64, 1), (33, 7, 1000, 5), (70, 64, 3001, 16), (9, 384, 6144, 32)],
    ids=lambda size: str(size),
)
def test_random_operands(B: int, D: int, N: int, k: int) -> None:
    assert_exact(*operands(B, D, N), k)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-3, 1e10, 1e25], ids=lambda scale: f"x{scale:g}")
def test_rows_of_any_size(scale: float) -> None:
    x, W, b = operands(20, 48, 2000, bias=0.0)
    x[::2] *= scale
    assert_exact(x, W, b, 8)


def test_latents_of_very_different_norms() -> None:
    x, W, b = operands(20, 48, 2000)
    W *= torch.logspace(-3, 1, len(W))[torch.randperm(len(W))][:, None]
    assert_exact(x, W, b, 8)


@pytest.mark.parametrize("bias", [-30.0, -2.5], ids=["none positive", "few positive"])
def test_fewer_positives_than_k(bias: float) -> None:
    x, W, _ = operands(20, 48, 2000)
    assert_exact(x, W, torch.full((2000,), bias), 16)


def test_more_near_ties_than_candidates() -> None:
    x, W, b = operands(6, 48, 2000, bias=0.0)
    W[200:400] = W[100] * (1 + 1e-6 * torch.randn(200, 1))
    x[0] = x[1] = W[100] * 40
    assert_exact(x, W, b, 8)


def test_equal_latents_are_taken_from_the_left() -> None:
    x, W, b = operands(4, 48, 2000, bias=0.0)
    W[500:540] = W[17]
    x[2] = W[17] * 50
    _, indices = screened_topk(x, Encoder(W, b), 8)
    assert indices[2].tolist() == [17, *range(500, 507)]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen(wrong: float) -> None:
    x, W, b = operands(4, 48, 2000)
    x[1, 3] = wrong
    values, _ = screened_topk(x, Encoder(W, b), 8)
    assert values.isfinite().all(dim=1).tolist() == [True, False, True, True]


def test_overflowing_products_are_seen() -> None:
    x, W, b = operands(4, 48, 2000)
    x[1] *= 3e38
    values, _ = screened_topk(x, Encoder(W, b), 8)
    assert values.isfinite().all(dim=1).tolist() == [True, False, True, True]


def test_the_margin_bounds_every_product() -> None:
    x, W, b = operands(40, 96, 3000)
    x *= torch.logspace(-4, 4, 40)[:, None]
    narrow = Screen.of(Encoder(W, b))
    rounded = x.to(torch.bfloat16)
    y = torch.addmm(narrow.b, rounded, narrow.W.t()).double()
    z = torch.addmm(b.double(), x.double(), W.double().t())
    off = (z - y).abs() - bf16_screen._ROUNDING * y.abs()
    assert (off.amax(dim=1) <= narrow.margin(x)).all()


def test_the_margin_bounds_what_rounding_a_sum_with_the_bias_adds() -> None:
    # The sum is just above the middle of two bfloat16, and float32 takes it for the middle.
    x, W = torch.tensor([[1.0, 2.0**-18]]), torch.full((1, 2), 2.0**-8)
    b = torch.tensor([1 + 2.0**-8])
    narrow = Screen.of(Encoder(W, b))
    y = (x.to(torch.bfloat16).float() @ narrow.W.float().t() + narrow.b).to(torch.bfloat16)
    z = b.double() + x.double() @ W.double().t()
    off = (z - y.double()).abs() - bf16_screen._ROUNDING * y.double().abs()
    assert off.item() <= narrow.margin(x).item()


def test_a_copy_that_somebody_has_is_taken() -> None:
    _, W, b = operands(4, 48, 2000)
    copy = W.to(torch.bfloat16)
    assert Screen.of(Encoder(W, b, copy)).W is copy


def test_only_doubtful_rows_take_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    x, W, b = operands(6, 48, 2000, bias=0.0)
    W[200:400] = W[100]
    x[4] = W[100] * 40
    whole = []
    select = bf16_screen.select_topk

    def counting(z: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        if z.dtype == torch.float32:
            whole.append(len(z))
        return select(z, k)

    monkeypatch.setattr(bf16_screen, "select_topk", counting)
    screened_topk(x, Encoder(W, b), 8)
    assert whole and whole[0] < 6


def test_encode_topk_screens_large_products_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16_screen, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(bf16_screen, "_LEAST_PRODUCTS", 20 * 48 * 2000)
    rows = []
    products = bf16_screen._products

    def counting(x: torch.Tensor, W: torch.Tensor, listed: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return products(x, W, listed)

    monkeypatch.setattr(bf16_screen, "_products", counting)
    x, W, b = operands(20, 48, 2000)
    for options in ({}, {"regularizer": "off_support_l1"}):
        code = encode_topk(x, W, b, torch.zeros(48), 8, **options)
        expected = reference.encode_topk(x, W, b, torch.zeros(48), 8)
        assert torch.equal(code.indices, expected.indices)
        torch.testing.assert_close(code.values, expected.values)
    encode_topk(x[:19], W, b, torch.zeros(48), 8)
    encode_topk(x.double(), W.double(), b.double(), torch.zeros(48).double(), 8)
    assert rows == [20]
