"""Where training starts: a scale that makes the mean predictor's loss 1, and a robust centre."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightsae.errors import LightsaeError
from lightsae.sae import geometric_median, input_statistics

CROSS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def sample(rows: int = 200, d_in: int = 6, mean: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return mean + torch.randn(rows, d_in, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("mean", [0.0, -3.0, 1e6])
def test_the_scale_is_the_root_of_the_total_variance(mean: float) -> None:
    x = sample(mean=mean)
    scale, centre = input_statistics(x)
    assert scale.item() == pytest.approx(x.var(dim=0, correction=0).sum().sqrt().item(), rel=1e-9)
    torch.testing.assert_close(centre, x.mean(dim=0))


def test_float32_rows_far_from_the_origin_lose_nothing_to_rounding() -> None:
    x = (sample(mean=1e6) * 8).round().float()
    exact = input_statistics(x.double())
    assert input_statistics(x).scale == exact.scale
    assert torch.equal(input_statistics(x).centre, exact.centre)


def test_more_rows_than_one_block_are_one_sample() -> None:
    x = sample(rows=10_000, d_in=2)
    assert input_statistics(x).scale.item() == pytest.approx(
        x.var(dim=0, correction=0).sum().sqrt().item()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_statistics_are_float64_whatever_the_sample(dtype: torch.dtype) -> None:
    scale, centre = input_statistics(CROSS.to(dtype) * 300, "geometric_median")
    assert scale.dtype == centre.dtype == torch.float64
    assert scale.item() == pytest.approx(300, rel=1e-2)


def test_the_centre_can_be_the_geometric_median() -> None:
    x = torch.cat([CROSS, CROSS / 2, torch.tensor([[900.0, 0.0]])])
    mean = input_statistics(x).centre
    median = input_statistics(x, "geometric_median").centre
    assert mean[0] == 100
    assert torch.linalg.vector_norm(median) < 1


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e6])
@pytest.mark.parametrize("rows", [1, 3, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_a_sample_of_equal_rows_is_refused(value: float, rows: int, dtype: torch.dtype) -> None:
    with pytest.raises(LightsaeError, match=f"all {rows} rows of the training sample are equal"):
        input_statistics(torch.full((rows, 4), value, dtype=dtype))


def test_a_sample_without_rows_is_refused() -> None:
    with pytest.raises(LightsaeError, match="has no rows"):
        input_statistics(torch.zeros(0, 4))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_sample_that_is_not_finite_is_refused_as_such(value: float) -> None:
    x = CROSS.clone()
    x[1, 0] = value
    with pytest.raises(LightsaeError, match="NaN or infinite"):
        input_statistics(x)


def test_the_median_of_a_cross_is_its_middle() -> None:
    torch.testing.assert_close(
        geometric_median(CROSS + 5), torch.full((2,), 5.0, dtype=torch.float64)
    )


def test_the_median_of_an_equilateral_triangle_is_its_centre() -> None:
    angles = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    corners = torch.stack([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(
        geometric_median(corners + 2), torch.full((2,), 2.0, dtype=torch.float64)
    )


def test_the_median_of_a_right_triangle_is_its_fermat_point() -> None:
    """For legs of length 1 both coordinates are (3 - sqrt 3) / 6: it sees each side under 120."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = torch.full((2,), (3 - math.sqrt(3)) / 6, dtype=torch.float64)
    torch.testing.assert_close(geometric_median(corners), expected, rtol=1e-7, atol=0)


def test_on_a_line_it_is_the_median() -> None:
    rows = torch.tensor([[0.0], [1.0], [1.5], [8.0], [900.0]])
    torch.testing.assert_close(
        geometric_median(rows), torch.tensor([1.5], dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_a_majority_at_one_point_is_the_median() -> None:
    rows = torch.cat([torch.full((6, 3), 2.0), 100 * torch.randn(4, 3)])
    torch.testing.assert_close(
        geometric_median(rows), torch.full((3,), 2.0, dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_a_start_on_a_row_that_is_not_the_median_is_left() -> None:
    rows = torch.tensor([[0.0], [0.0], [0.0], [2.0], [8.0]])
    assert rows.mean() == 2, "the iteration starts on the fourth row"
    assert geometric_median(rows).abs() < 1e-3


def test_a_large_mean_does_not_move_the_median() -> None:
    x = sample()
    torch.testing.assert_close(
        geometric_median(x + 1e6) - 1e6, geometric_median(x), rtol=0, atol=1e-6
    )


@given(seed=st.integers(0, 99), d_in=st.integers(1, 5), rows=st.integers(1, 30))
def test_no_nearby_point_is_closer_to_the_rows(seed: int, d_in: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, d_in, generator=generator, dtype=torch.float64)
    median = geometric_median(x)

    def distance(point: torch.Tensor) -> float:
        return torch.linalg.vector_norm(x - point, dim=1).sum().item()

    for _ in range(5):
        step = torch.randn(d_in, generator=generator, dtype=torch.float64)
        assert distance(median) <= distance(median + 0.1 * step) + 1e-3
