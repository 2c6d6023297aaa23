"""Random dictionaries of any shape, on a grid when ties are wanted."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Problem(NamedTuple):
    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    b_dec: Tensor
    W_dec: Tensor

    def leaves(self, dtype: torch.dtype = torch.float64) -> "Problem":
        return Problem(*(t.to(dtype).clone().requires_grad_() for t in self))

    @property
    def encoder(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.x, self.W_enc, self.b_enc, self.b_dec


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    def make(B: int, d_in: int, d_sae: int, *, seed: int = 0, grid: float = 0.0) -> Problem:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            t = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return (t / grid).round() * grid if grid else t

        return Problem(
            draw(B, d_in),
            draw(d_sae, d_in),
            draw(d_sae) * 0.5,
            draw(d_in) * 0.5,
            draw(d_sae, d_in),
        )

    return make


def assert_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative error of the whole tensor, ||actual - expected|| / ||expected||."""
    actual, expected = actual.double(), expected.double()
    assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
    error = torch.linalg.vector_norm(actual - expected)
    scale = torch.linalg.vector_norm(expected)
    assert torch.isfinite(error), f"{name} is not finite"
    assert error <= tolerance * scale.clamp_min(1e-12), f"{name} is off by {error / scale:.2e}"


@pytest.fixture(name="assert_close")
def assert_close_fixture() -> Callable[[str, Tensor, Tensor, float], None]:
    return assert_close
