"""On a GPU: the tiles that ship, at aligned sizes, in mixed precision as in training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import (
    AdamSettings,
    adam_step_,
    encode_residual,
    memory,
    raise_if_flagged,
    reference,
)
from torch import Tensor
from torch.nn import functional as F

from .conftest import INTERPRETED
from .encode.encode_cases import PENALTIES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(INTERPRETED, reason="needs a GPU")]

Close = Callable[..., None]
NAMES = ("x", "W_enc", "b_enc", "W_dec", "b_dec")
SHAPES = [(300, 1024, 8192, 32), (257, 128, 2000, 16), (2500, 384, 4096, 64)]
# One rounding of a product of the dtype, times the square root of a hundred terms.
TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
SETTINGS = AdamSettings(lr=1e-3, project=True, normalize=True)

shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-D{}-N{}-K{}".format(*s))
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp16", "bf16"])
penalties = pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)


def leaves(B: int, d_in: int, d_sae: int) -> list[Tensor]:
    """In float32; a quarter of the latents is positive now and then, and never selected."""
    generator = torch.Generator("cuda").manual_seed(B)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda")

    W_enc, W_dec = (F.normalize(draw(d_sae, d_in), dim=1) for _ in range(2))
    b_enc, b_dec = draw(d_sae) / 10, draw(d_in) / 10
    b_enc[d_sae // 4 : d_sae // 2] -= 3
    return [t.requires_grad_() for t in (draw(B, d_in), W_enc, b_enc, W_dec, b_dec)]


def step(
    tensors: list[Tensor], k: int, dtype: torch.dtype | None, backend: Any, **options: Any
) -> tuple[Any, Any, tuple[Tensor, ...]]:
    """A code, what it leaves and all gradients of a loss of both."""
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        encoded, left = encode_residual(*tensors, k, backend=backend, **options)
    loss = left.error.mean() + 0.7 * encoded.penalty + encoded.values.float().square().mean()
    return encoded, left, torch.autograd.grad(loss.double(), tensors)


@shapes
@dtypes
@penalties
def test_equals_the_definition(
    regularizer: str | None, masked: bool, dtype: torch.dtype, shape: tuple[int, int, int, int],
    way: str, assert_close: Close,
) -> None:  # fmt: skip
    B, d_in, d_sae, k = shape
    tensors = leaves(B, d_in, d_sae)
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    encoded, left, grads = step(tensors, k, dtype, "triton", **options)
    never = slice(d_sae // 4, d_sae // 2)
    assert not encoded.batch_active[never].any()
    x, W_enc, b_enc, _, b_dec = tensors
    assert (reference.activations(x, W_enc[never], b_enc[never], b_dec) > 0).any()
    options |= {"indices": encoded.indices, "batch_active": encoded.batch_active}
    exact = [t.detach().double().requires_grad_() for t in tensors]
    want, want_left, want_grads = step(exact, k, None, "reference", **options)
    assert_close("values", encoded.values, want.values, TOLERANCE[dtype])
    assert_close("penalty", encoded.penalty, want.penalty, TOLERANCE[dtype])
    assert_close("residual", left.residual, want_left.residual, TOLERANCE[dtype])
    assert_close("error", left.error, want_left.error, TOLERANCE[dtype])
    for name, actual, expected in zip(NAMES, grads, want_grads, strict=True):
        assert_close(f"d_{name}", actual, expected, TOLERANCE[dtype])


@shapes
@dtypes
@pytest.mark.parametrize("regularizer", ["off_support_l1", "l1_l2_ratio"])
def test_activations_made_again_have_the_gradients_of_those_kept(
    regularizer: str, dtype: torch.dtype, shape: tuple[int, int, int, int], way: str
) -> None:
    B, d_in, d_sae, k = shape
    runs = []
    for recompute in (False, True):
        with memory.bounded(recompute=recompute):
            runs.append(step(leaves(B, d_in, d_sae), k, dtype, "triton", regularizer=regularizer))
    for name, kept, again in zip(NAMES, runs[0][2], runs[1][2], strict=True):
        assert torch.equal(kept, again), name


@shapes
@dtypes
@pytest.mark.parametrize("regularizer", [None, "off_support_l1", "l1_l2_ratio"])
def test_ten_steps_from_one_state_have_the_same_bits(
    regularizer: str | None, dtype: torch.dtype, shape: tuple[int, int, int, int], way: str
) -> None:
    B, d_in, d_sae, k = shape
    start = leaves(B, d_in, d_sae)

    def whole() -> list[Tensor]:
        tensors = [t.detach().clone().requires_grad_() for t in start]
        copies = [t.detach().to(dtype) for t in (tensors[1], tensors[3])]
        encoded, left, grads = step(
            tensors, k, dtype, "triton", regularizer=regularizer, W_enc_narrow=copies[0],
            W_dec_narrow=copies[1],
        )  # fmt: skip
        found = [*encoded, *left, *grads]
        for at, copy in zip((1, 3), copies, strict=True):
            moments = torch.zeros_like(tensors[at]), torch.zeros_like(tensors[at])
            one = torch.ones((), device="cuda")
            adam_step_(tensors[at], grads[at], *moments, one, SETTINGS, copy)
            found += [tensors[at], *moments, copy]
        return found

    first = whole()
    for _ in range(9):
        assert all(torch.equal(one, other) for one, other in zip(first, whole(), strict=True))
    raise_if_flagged()
