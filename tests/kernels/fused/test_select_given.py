"""Activations at a given support; what lies outside the dictionary reads nothing."""

import numpy as np
import pytest
import torch
from lightsae_kernels.fault_flags import unwatched

from .conftest import DTYPES

select = pytest.importorskip("lightsae_kernels.fused.select")


def at_support(a: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, list[int], int]:
    values = torch.full(indices.shape, float("nan"), dtype=a.dtype, device=a.device)
    active = torch.zeros(a.shape[1], dtype=torch.int8, device=a.device)
    flag = unwatched(a.device)
    select.select_given(a, values, indices, active, flag)
    return values, active.nonzero().squeeze(1).tolist(), int(flag.fault)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_gathered_and_latents_marked(dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(37, 50, generator=generator).to(dtype).to(device)
    indices = torch.randint(0, 50, (37, 5), generator=generator).to(device)
    values, active, flag = at_support(a, indices)
    assert torch.equal(values, a.gather(1, indices))
    assert active == indices.unique().tolist()
    assert flag == 0


@pytest.mark.parametrize("latent", [-1, 50])
def test_an_index_outside_raises_the_flag(latent: int, device: torch.device) -> None:
    values, active, flag = at_support(
        torch.ones(1, 50, device=device), torch.tensor([[3, latent]], device=device)
    )
    assert (values.tolist(), active, flag) == ([[1.0, 0.0]], [3], 1)


def test_offsets_beyond_int32(device: torch.device) -> None:
    # Zero pages: only what is read takes memory.
    a = torch.from_numpy(np.zeros((2100, 1 << 20), np.float16)).to(device)
    a[2099, 5] = 7.0
    values, _, _ = at_support(a, torch.full((2100, 1), 5, device=device))
    assert values.nonzero().tolist() == [[2099, 0]]


def test_an_infinite_value_raises_the_flag(device: torch.device) -> None:
    a = torch.full((1, 4), float("inf"), device=device)
    assert at_support(a, torch.tensor([[2]], device=device))[2] == 1
