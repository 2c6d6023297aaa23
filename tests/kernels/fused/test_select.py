"""The fused selection equals the definition's indices for any input, ties to the lowest index."""

from typing import Any

import pytest
import torch
from lightsae_kernels import reference
from lightsae_kernels.fault_flags import unwatched
from torch import Tensor

from .conftest import DTYPES

select = pytest.importorskip("lightsae_kernels.fused.select")


def fused(a: Tensor, k: int, group: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, N = a.shape
    group = group or select.group_size(N, k)
    padded = torch.nn.functional.pad(a, (0, select.maxima_columns(N, group) * group - N))
    maxima = padded.unflatten(1, (-1, group)).amax(dim=2)
    values = a.new_full((B, k), float("nan"))
    indices = torch.full((B, k), -77, device=a.device)
    active = torch.zeros(N, dtype=torch.int8, device=a.device)
    flag = unwatched(a.device)
    select.select(a, maxima, values, indices, active, flag, group)
    return values, indices, active, flag.fault


def assert_selected(a: Tensor, k: int, group: int | None = None) -> None:
    values, indices, active, flag = fused(a, k, group)
    expected = reference.select_topk(a, k)
    assert torch.equal(indices, expected)
    assert torch.equal(values, a.gather(1, expected))
    assert active.nonzero().squeeze(1).tolist() == expected.unique().tolist()
    assert int(flag) == 0


def activations(B: int, N: int, dtype: torch.dtype, device: Any, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, N, generator=generator).relu().to(dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "N", "k"), [(41, 401, 7), (1, 33, 4), (5, 1, 1), (3, 64, 64), (2, 3000, 100)],
    ids=lambda n: str(n),
)  # fmt: skip
def test_ragged_rows(B: int, N: int, k: int, dtype: torch.dtype, device: torch.device) -> None:
    assert_selected(activations(B, N, dtype, device), k)


def test_a_zero_behind_the_last_group_is_never_selected(device: torch.device) -> None:
    a = torch.zeros(2, 33, device=device)
    a[1, 32] = 1
    assert select.maxima_columns(33, 2) == 32
    assert_selected(a, 17, group=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_lowest_index(dtype: torch.dtype, device: torch.device) -> None:
    assert_selected((activations(20, 300, dtype, device) * 2).round(), 11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_zeros_and_with_fewer_positives_than_k(
    dtype: torch.dtype, device: torch.device
) -> None:
    a = torch.zeros(3, 130, dtype=dtype, device=device)
    a[1, [4, 77, 129]] = torch.tensor([1.0, 3.0, 2.0], dtype=dtype, device=device)
    a[2] = 5.0
    assert_selected(a, 9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_column_and_equal_rows(dtype: torch.dtype, device: torch.device) -> None:
    a = activations(1, 257, dtype, device).expand(16, -1).clone()
    a[:, 200] = 100.0
    assert_selected(a, 8)


def test_the_smallest_and_the_largest_numbers_are_told_apart(device: torch.device) -> None:
    tiny, huge = torch.finfo(torch.float16).smallest_normal / 1024, 65504.0
    a = torch.tensor([[0.0, tiny, huge, 2 * tiny, 65472.0, 0.0]], dtype=torch.float16)
    assert_selected(a.to(device), 4)


def test_an_infinite_value_raises_the_flag(device: torch.device) -> None:
    a = activations(4, 64, torch.float32, device)
    a[2, 40] = float("inf")
    values, indices, _, flag = fused(a, 3)
    assert int(flag) == 1
    assert (float(values[2, 0]), int(indices[2, 0])) == (float("inf"), 40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "N", "k"), [(19, 401, 7), (1, 20, 1), (3, 64, 64), (2, 9000, 40)], ids=str
)
def test_rows_of_pre_activations_are_scanned(
    B: int, N: int, k: int, dtype: torch.dtype, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(B, N, generator=generator).to(dtype).to(device)
    group, flag = select.group_size(N, k), unwatched(device)
    maxima = z.new_full((B, select.maxima_columns(N, group)), float("nan"))
    values = z.new_full((B, k), float("nan"))
    indices = torch.full((B, k), -77, device=device)
    active = torch.zeros(N, dtype=torch.int8, device=device)
    norms = torch.full((B, 2), float("nan"), device=device)
    outputs = (values, indices, active, flag)
    select.select(z, maxima, *outputs, group, scan=True, norms=norms)
    a = z.relu()
    expected = reference.select_topk(a, k)
    assert torch.equal(indices, expected)
    assert torch.equal(values, a.gather(1, expected))
    assert active.nonzero().squeeze(1).tolist() == expected.unique().tolist()
    torch.testing.assert_close(norms[:, 0], a.float().sum(dim=1))
    torch.testing.assert_close(norms[:, 1], a.float().square().sum(dim=1))
    assert int(flag.fault) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scanned_rows_tell_nan_and_inf(value: float, device: torch.device) -> None:
    z = torch.zeros(3, 100, device=device)
    z[1, 77] = value
    flag, shape = unwatched(device), (3, 2)
    outputs = z.new_zeros(shape), torch.zeros(shape, dtype=torch.int64, device=device)
    active = torch.zeros(100, dtype=torch.int8, device=device)
    maxima = z.new_zeros(3, select.maxima_columns(100, 2))
    select.select(z, maxima, *outputs, active, flag, 2, scan=True)
    assert int(flag.told) == int(flag.fault) == 1
    assert outputs[1][1].tolist()[0] == 77
