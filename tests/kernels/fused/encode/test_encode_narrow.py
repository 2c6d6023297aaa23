"""The fused encode_topk with narrowed supports and with banks, against the float64 definition."""

from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, encode_topk, nested_residual

from ...test_encode_narrow import SUPPORTS
from ...test_nested import problem as nested_problem
from ...test_nested import run as run_nested
from ..conftest import DTYPES
from .encode_cases import NAMES, PENALTIES, Close, Make, leaves, run

pytest.importorskip("lightsae_kernels.fused")
# One rounding of a product of the dtype, times the square root of a hundred terms.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)
@pytest.mark.parametrize("support", ["narrow", "none-used", "bank", "group-max", "bank-narrow"])
def test_equals_the_definition(
    support: str, regularizer: str | None, masked: bool, dtype: torch.dtype, way: str,
    device: torch.device, make_problem: Make, assert_close: Close,
) -> None:  # fmt: skip
    tensors = leaves(make_problem(23, 12, 60), dtype, device)
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    ours, our_grads = run(tensors, 6, "triton", **options, **SUPPORTS[support])
    exact = [t.detach().double().requires_grad_() for t in tensors]
    used = torch.ones_like(ours.indices, dtype=torch.bool) if ours.used is None else ours.used
    options |= {"indices": ours.indices, "narrow": lambda values, indices: used}
    want, want_grads = run(exact, 6, "reference", **options)
    assert torch.equal(ours.batch_active, want.batch_active)
    assert_close("values", ours.values, want.values, TOLERANCE[dtype])
    # What cancels in Reg 1 is known to the rounding of the whole sum.
    assert abs(ours.penalty - want.penalty) <= TOLERANCE[dtype] * want.penalty.clamp_min(1.0)
    for name, actual, expected in zip(NAMES, our_grads, want_grads, strict=True):
        assert_close(f"d_{name}", actual, expected, TOLERANCE[dtype])


def test_a_bound_is_for_the_cpu(make_problem: Make, device: torch.device) -> None:
    tensors = leaves(make_problem(23, 12, 60), torch.float32, device)
    with pytest.raises(ArgumentError, match="above is for CPU tensors: give k and narrow"):
        encode_topk(*tensors, 6, backend="triton", above=torch.tensor(1.0, device=device))


def test_nested_parts_equal_the_definition(device: torch.device, assert_close: Close) -> None:
    tensors, indices, levels = nested_problem((17, 12, 40, 5, 3))
    indices, levels = indices.to(device), levels.to(device)
    ours = run_nested(tensors, indices, levels, 3, torch.float32, backend="triton")
    wanted = run_nested(tensors, indices.cpu(), levels.cpu(), 3, torch.float64, backend="reference")
    for name, expected in wanted.items():
        assert_close(name, ours[name].cpu(), expected, 2e-6)


def test_nested_parts_in_half_precision_stay_near(device: torch.device) -> None:
    tensors, indices, levels = nested_problem((17, 12, 40, 5, 2))
    x, values, W_dec, b_dec = (t.half().to(device) for t in tensors)
    indices, levels = indices.to(device), levels.to(device)
    ours = nested_residual(x, values, indices, levels, 2, W_dec, b_dec, backend="triton")
    wanted = nested_residual(x, values, indices, levels, 2, W_dec, b_dec, backend="reference")
    torch.testing.assert_close(ours.errors, wanted.errors, rtol=1e-2, atol=1e-2)
