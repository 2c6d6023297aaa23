"""The fused encode_residual: outputs and every gradient against the float64 definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import encode_residual, memory
from torch import Tensor

from ..conftest import DTYPES
from .encode_cases import PENALTIES
from .test_encode import SHAPES, TOLERANCE

pytest.importorskip("lightsae_kernels.fused")
from lightsae_kernels.fused import weight_gradients

Make = Callable[..., Any]
Close = Callable[..., None]

NAMES = ("x", "W_enc", "b_enc", "W_dec", "b_dec")
USES = {
    "training": (False, False, True),
    "training and more": (True, True, True),
    "values alone": (True, False, False),
    "residual alone": (False, True, False),
}


def leaves(problem: Any, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    named = [getattr(problem, name) for name in NAMES]
    return [t.to(dtype).to(device).clone().requires_grad_() for t in named]


def run(tensors: list[Tensor], k: int, backend: Any, uses: Any, **options: Any) -> Any:
    encoded, left = encode_residual(*tensors, k, backend=backend, **options)
    generator = torch.Generator().manual_seed(9)
    # Small enough that the gradients stay in the range of fp16.
    loss = 0.7 / 64 * encoded.penalty
    for out, used in zip((encoded.values, left.residual, left.error), uses, strict=True):
        upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64) / 64
        loss = loss + (out * upstream.to(out)).sum() if used else loss
    wanted = [t for t in tensors if t.requires_grad]
    return encoded, left, torch.autograd.grad(loss, wanted, materialize_grads=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)
@pytest.mark.parametrize(
    ("uses", "shape"),
    [
        *(pytest.param(uses, SHAPES[0], id=uses) for uses in USES),
        *(
            pytest.param("training and more", s, id="B{}-D{}-N{}-K{}".format(*s))
            for s in SHAPES[1:]
        ),
    ],
)
def test_equals_the_definition(
    uses: str,
    shape: tuple[int, int, int, int],
    masked: bool,
    regularizer: str | None,
    dtype: torch.dtype,
    device: torch.device,
    make_problem: Make,
    assert_close: Close,
) -> None:
    B, d_in, d_sae, k = shape
    problem = make_problem(B, d_in, d_sae)
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    tensors = leaves(problem, dtype, device)
    encoded, left, grads = run(tensors, k, "triton", USES[uses], **options)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    options |= {"indices": encoded.indices, "batch_active": encoded.batch_active}
    want, want_left, want_grads = run(exact, k, "reference", USES[uses], **options)
    tolerance = TOLERANCE[dtype]
    assert_close("values", encoded.values, want.values, tolerance)
    assert_close("penalty", encoded.penalty, want.penalty, tolerance)
    assert_close("residual", left.residual, want_left.residual, tolerance)
    assert_close("error", left.error, want_left.error, tolerance)
    for name, actual, expected in zip(NAMES, grads, want_grads, strict=True):
        assert_close(f"d_{name}", actual, expected, tolerance)


def test_both_weight_gradients_come_out_of_one_pass(
    device: torch.device, make_problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    kernel = weight_gradients.weight_gradients_kernel

    class Counted:
        def __getitem__(self, grid: Any) -> Any:
            passes.append(grid)
            return kernel[grid]

    monkeypatch.setattr(weight_gradients, "weight_gradients_kernel", Counted())
    run(leaves(make_problem(9, 4, 30), torch.float32, device), 3, "triton", (True, True, True))
    assert len(passes) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_single_gradient_may_be_asked_for(
    name: str, device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    tensors = leaves(make_problem(9, 4, 30), torch.float32, device)
    every = run(tensors, 3, "triton", USES["training"])[2]
    one = NAMES.index(name)
    alone = [t.detach().requires_grad_(i == one) for i, t in enumerate(tensors)]
    (found,) = run(alone, 3, "triton", USES["training"])[2]
    assert_close(name, found, every[one], 1e-6)


@pytest.mark.parametrize("regularizer", ["off_support_l1", "l1_l2_ratio"])
def test_recomputing_changes_nothing(
    regularizer: str, device: torch.device, make_problem: Make
) -> None:
    problem = make_problem(40, 6, 70)
    runs = []
    for recompute in (False, True):
        with memory.bounded(recompute=recompute):
            tensors = leaves(problem, torch.float16, device)
            runs.append(run(tensors, 5, "triton", USES["training"], regularizer=regularizer)[2])
    for name, kept, made_again in zip(NAMES, *runs, strict=True):
        assert torch.equal(kept, made_again), name
