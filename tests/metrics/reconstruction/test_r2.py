import inspect
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import R2, r2


def definition(x_hat: Tensor, x: Tensor) -> Tensor:
    x_hat, x = x_hat.double(), x.double()
    return 1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()


def noisy(rows: int, d_in: int, mean: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x = mean + torch.randn(rows, d_in, generator=generator, dtype=torch.float64)
    return x + 0.3 * torch.randn(rows, d_in, generator=generator, dtype=torch.float64), x


def test_equals_the_definition() -> None:
    x_hat, x = noisy(50, 6)
    torch.testing.assert_close(r2(x_hat=x_hat, x=x), definition(x_hat, x), rtol=1e-14, atol=0)


def test_perfect_reconstruction_is_one_and_the_mean_is_zero() -> None:
    _, x = noisy(50, 6)
    assert r2(x_hat=x, x=x) == 1
    torch.testing.assert_close(r2(x_hat=x.mean(0).expand_as(x), x=x), torch.tensor(0.0).double())


def test_the_mean_is_per_dimension() -> None:
    x = torch.tensor([[0.0, 100.0], [2.0, 102.0]])
    torch.testing.assert_close(r2(x_hat=torch.tensor([[1.0, 101.0]]).expand(2, 2), x=x).item(), 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_low_precision_inputs_are_summed_in_float64(dtype: torch.dtype) -> None:
    x_hat, x = (t.to(dtype) for t in noisy(300, 8))
    torch.testing.assert_close(r2(x_hat=x_hat, x=x), definition(x_hat, x), rtol=1e-12, atol=0)


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(lambda s: sum(s) > 1),
    d_in=st.integers(1, 5),
    mean=st.sampled_from([0.0, 3.0, 1e6, -1e6]),
)
@settings(max_examples=50, deadline=None)
def test_any_split_into_batches_gives_the_whole(sizes: list[int], d_in: int, mean: float) -> None:
    x_hat, x = noisy(sum(sizes), d_in, mean)
    metric = R2(d_in)
    for x_hat_part, x_part in zip(x_hat.split(sizes), x.split(sizes), strict=True):
        metric.update(x_hat=x_hat_part, x=x_part)
    # The mean itself is only known to 1e6 * 2^-53, so the reference is taken around zero.
    torch.testing.assert_close(
        metric.compute(), definition(x_hat - mean, x - mean), rtol=1e-9, atol=1e-9
    )


def test_a_mean_of_a_million_standard_deviations_costs_no_digits() -> None:
    x_hat, x = noisy(4000, 4)
    metric = R2(4)
    for start in range(0, 4000, 7):
        part = slice(start, start + 7)
        metric.update(x_hat=1e6 + x_hat[part], x=1e6 + x[part])
    expected = definition((1e6 + x_hat) - 1e6, (1e6 + x) - 1e6)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-12, atol=0)


def test_merged_parts_equal_the_whole() -> None:
    x_hat, x = noisy(30, 3, mean=1e4)
    left, right = R2(3), R2(3)
    left.update(x_hat=x_hat[:11], x=x[:11])
    right.update(x_hat=x_hat[11:], x=x[11:])
    left.merge_state(right)
    torch.testing.assert_close(left.compute(), definition(x_hat, x), rtol=1e-10, atol=0)


def test_forward_returns_the_batch_and_keeps_the_whole() -> None:
    x_hat, x = noisy(30, 3)
    metric = R2(3)
    for part in (slice(0, 10), slice(10, 30)):
        torch.testing.assert_close(
            metric(x_hat=x_hat[part], x=x[part]), definition(x_hat[part], x[part])
        )
    torch.testing.assert_close(metric.compute(), definition(x_hat, x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("x", [torch.full((7, 3), 0.1), torch.ones(1, 3)], ids=["constant", "row"])
def test_data_that_do_not_vary_have_no_r2(x: Tensor) -> None:
    assert r2(x_hat=x + 1, x=x).isnan()
    assert r2(x_hat=x, x=x).isnan()


def test_constant_data_have_no_r2_over_batches_either() -> None:
    metric = R2(3)
    for rows in (3, 1, 5):
        x = torch.full((rows, 3), 0.1)
        metric.update(x_hat=x + 1, x=x)
    assert metric.compute().isnan()


def test_tokens_are_rows() -> None:
    x_hat, x = noisy(24, 5)
    assert r2(x_hat=x_hat.view(2, 12, 5), x=x.view(2, 12, 5)) == r2(x_hat=x_hat, x=x)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(LightsaeError, match=r"x_hat has shape \[2, 3\], expected x's \[2, 4\]"):
        r2(x_hat=torch.zeros(2, 3), x=torch.zeros(2, 4))
    with pytest.raises(LightsaeError, match="x has width 4, expected d_in = 3"):
        R2(3).update(x_hat=torch.zeros(2, 4), x=torch.zeros(2, 4))


@pytest.mark.parametrize("call", [r2, R2(3).update, R2(3)], ids=["function", "update", "forward"])
def test_by_position_one_line_says_to_name_them(call: Callable[..., Tensor]) -> None:
    x_hat, x = noisy(5, 3)
    with pytest.raises(LightsaeError, match="takes x_hat and x by name, as x_hat="):
        call(x, x_hat)
    with pytest.raises(LightsaeError, match="by name"):
        call(x, x_hat=x_hat)
    assert r2(x_hat=x_hat, x=x) != r2(x_hat=x, x=x_hat)


def test_the_names_are_in_the_signature() -> None:
    for call in (r2, R2(3).update):
        kinds = [parameter.kind for parameter in inspect.signature(call).parameters.values()]
        assert kinds == [inspect.Parameter.KEYWORD_ONLY] * 2
