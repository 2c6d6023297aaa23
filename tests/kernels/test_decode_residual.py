"""sparse_residual: residual, error and gradients against the definition; every backend."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, sparse_residual

Make = Callable[..., Any]
Close = Callable[..., None]


@pytest.mark.parametrize(("B", "d_in", "d_sae", "k"), [(41, 12, 201, 7), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
def test_equals_the_definition(
    B: int, d_in: int, d_sae: int, k: int, dtype: torch.dtype, tolerance: float,
    make_problem: Make, assert_close: Close,
) -> None:  # fmt: skip
    problem = make_problem(B, d_in, d_sae)
    generator = torch.Generator().manual_seed(5)
    indices = torch.randint(0, d_sae, (B, k), generator=generator)
    values = torch.randn(B, k, dtype=torch.float64, generator=generator)
    upstream = torch.randn(B, d_in, dtype=torch.float64, generator=generator)
    weights = torch.rand(B, dtype=torch.float64, generator=generator)

    def run(backend: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        tensors = (problem.x, values, problem.W_dec, problem.b_dec)
        x, z, W_dec, b_dec = leaves = [t.to(dtype).clone().requires_grad_() for t in tensors]
        found = sparse_residual(x, z, indices, W_dec, b_dec, backend=backend)
        loss = (found.residual * upstream.to(dtype)).sum() + (found.error * weights.to(dtype)).sum()
        return (*found, *torch.autograd.grad(loss, leaves))

    names = ("residual", "error", "d_x", "d_values", "d_W_dec", "d_b_dec")
    pairs = zip(names, run("cpu", dtype), run("reference", torch.float64), strict=True)
    for name, actual, expected in pairs:
        assert_close(name, actual, expected, tolerance)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_byte_types_give_float32(backend: str, dtype: torch.dtype) -> None:
    x, W_dec = torch.ones(2, 3, dtype=dtype), torch.ones(4, 3, dtype=dtype)
    values, indices = torch.ones(2, 1, dtype=dtype), torch.zeros(2, 1, dtype=torch.int64)
    found = sparse_residual(x, values, indices, W_dec, backend=backend)
    assert found.residual.dtype == found.error.dtype == torch.float32
    assert found.error.tolist() == [0, 0]


def test_an_x_that_does_not_fit_or_has_nan_is_named() -> None:
    values, indices, W_dec = torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.int64), torch.eye(4, 3)
    with pytest.raises(ArgumentError, match=r"x must be \[B = 2, d_in = 3\], got shape \(2, 4\)"):
        sparse_residual(torch.ones(2, 4), values, indices, W_dec)
    with pytest.raises(ArgumentError, match="x has 1 NaN or infinite values"):
        sparse_residual(torch.tensor([[1.0] * 3, [1, 2, float("nan")]]), values, indices, W_dec)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_squared_error_that_overflows_is_said(backend: str) -> None:
    values, indices = torch.tensor([[1e20]]), torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ArgumentError, match="the squared error overflows float32: scale x down"):
        sparse_residual(torch.ones(1, 3), values, indices, torch.eye(4, 3), backend=backend)
