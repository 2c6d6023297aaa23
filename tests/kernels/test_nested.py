"""Residuals of nested parts: outputs and every gradient against the definition in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, PairOrder, nested_residual
from torch import Tensor

Close = Callable[..., None]
SHAPES = {
    "B23-D7-N60-K6-P3": (23, 7, 60, 6, 3),
    "B1-D5-N33-K4-P1": (1, 5, 33, 4, 1),
    "B9-D1-N4-K4-P6": (9, 1, 4, 4, 6),
    "B0-D3-N5-K2-P2": (0, 3, 5, 2, 2),
}
NAMES = ("x", "values", "W_dec", "b_dec")
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}


def problem(shape: tuple[int, ...], seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """x, values, W_dec and b_dec; latents that repeat within a row; levels in any order."""
    B, D, N, k, P = shape
    generator = torch.Generator().manual_seed(seed)
    draw: Any = lambda *size: torch.randn(  # noqa: E731
        *size, generator=generator, dtype=torch.float64
    )
    tensors = [draw(B, D), draw(B, k).abs(), draw(N, D), draw(D)]
    indices = torch.randint(0, N, (B, k), generator=generator)
    levels = torch.randint(0, P, (B, k), generator=generator)
    return tensors, indices, levels


def run(
    tensors: list[Tensor], indices: Tensor, levels: Tensor, parts: int, dtype: torch.dtype,
    **options: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """Outputs and gradients under a random upstream gradient of both outputs."""
    x, values, W_dec, b_dec = leaves = [
        t.to(dtype).to(indices.device).clone().requires_grad_() for t in tensors
    ]
    used = options.get("used")
    code = values if used is None else values * used
    left = nested_residual(x, code, indices, levels, parts, W_dec, b_dec, **options)
    generator = torch.Generator().manual_seed(7)
    loss = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)).sum()
        for out in left
    )
    gradients = torch.autograd.grad(loss, leaves)
    found = {"residual": left.residual, "errors": left.errors}
    return found | {f"d_{name}": g for name, g in zip(NAMES, gradients, strict=True)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("narrowed", [False, True], ids=["all-used", "some-used"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_definition(
    shape: tuple[int, ...], narrowed: bool, dtype: torch.dtype, assert_close: Close
) -> None:
    tensors, indices, levels = problem(shape)
    options: dict[str, Any] = {}
    if narrowed:
        options["used"] = torch.rand(
            indices.shape, generator=torch.Generator().manual_seed(5)
        ) > 0.4  # fmt: skip
    ours = run(tensors, indices, levels, shape[-1], dtype, backend="cpu", **options)
    wanted = run(tensors, indices, levels, shape[-1], torch.float64, backend="reference", **options)
    for name, expected in wanted.items():
        assert_close(name, ours[name], expected, TOLERANCE[dtype])


def test_one_part_is_the_plain_residual() -> None:
    from lightsae_kernels import sparse_residual

    (x, values, W_dec, b_dec), indices, levels = problem((9, 5, 20, 3, 1))
    nested = nested_residual(x, values, indices, levels, 1, W_dec, b_dec)
    plain = sparse_residual(x, values, indices, W_dec, b_dec)
    torch.testing.assert_close(nested.residual, plain.residual)
    torch.testing.assert_close(nested.errors[0], plain.error)


def test_a_part_without_places_repeats_the_one_before() -> None:
    (x, values, W_dec, b_dec), indices, _ = problem((9, 5, 20, 3, 1))
    levels = torch.full_like(indices, 1)
    first, second, third = nested_residual(x, values, indices, levels, 3, W_dec, b_dec).errors
    torch.testing.assert_close(first, (x - b_dec).square().sum(dim=1))
    assert torch.equal(second, third)


def test_an_order_that_the_encoding_made_is_used_again() -> None:
    (x, values, W_dec, _), indices, levels = problem((9, 5, 20, 3, 2))
    sorts: list[int] = []

    class Counting(PairOrder):
        def of(self, indices: Tensor, d_sae: int, sort: Any, used: Any = None) -> Any:
            def counted(*arguments: Any, **others: Any) -> Any:
                sorts.append(1)
                return sort(*arguments, **others)

            key = self.__dict__.setdefault("counted", counted)
            return super().of(indices, d_sae, key, used)

    order, W = Counting(), W_dec.requires_grad_()
    for _ in range(2):
        left = nested_residual(x, values, indices, levels, 2, W, order=order, backend="cpu")
        left.errors.sum().backward()
    assert sorts == [1]


def test_same_bits_every_time() -> None:
    tensors, indices, levels = problem(SHAPES["B23-D7-N60-K6-P3"])
    first, second = (run(tensors, indices, levels, 3, torch.float32) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": torch.tensor([[0, 2]])}, r"levels must lie in \[0, parts = 2\)"),
        ({"levels": torch.tensor([[0, -1]])}, r"levels must lie in \[0, parts = 2\)"),
        ({"levels": torch.tensor([[0]])}, r"levels must be \[B, k\] = \[1, 2\]"),
        ({"levels": torch.tensor([[0.0, 1.0]])}, "int64"),
        ({"parts": 0}, "parts must be an integer of at least 1, got 0"),
        ({"x": torch.zeros(1, 3)}, r"x must be \[B = 1, d_in = 2\]"),
        ({"x": torch.tensor([[0.0, float("nan")]])}, "x has 1 NaN"),
        ({"indices": torch.tensor([[0, 5]])}, r"indices must lie in \[0, d_sae = 5\)"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    arguments = {
        "x": torch.zeros(1, 2), "values": torch.ones(1, 2), "indices": torch.tensor([[0, 1]]),
        "levels": torch.tensor([[0, 1]]), "parts": 2, "W_dec": torch.ones(5, 2),
    }  # fmt: skip
    with pytest.raises(ArgumentError, match=message):
        nested_residual(**(arguments | changes))
