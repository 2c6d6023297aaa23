import pytest
import torch
from sklearn.metrics import r2_score

from lightsae.errors import LightsaeError
from lightsae.metrics import R2Uniform, r2, r2_uniform
from tests.metrics import references


def rows(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    scale = torch.tensor([1.0, 10.0, 0.01, 3.0], dtype=torch.float64)
    x = scale * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x + 0.3 * torch.randn(n, 4, generator=generator, dtype=torch.float64), x


@pytest.mark.parametrize("n", [2, 3, 50])
def test_it_is_the_uniform_average_of_scikit_learn(n: int) -> None:
    x_hat, x = rows(n)
    found = r2_uniform(x_hat=x_hat, x=x).item()
    assert found == pytest.approx(r2_score(x.numpy(), x_hat.numpy()), rel=1e-10)
    assert found == pytest.approx(references.r2_uniform(x_hat, x), rel=1e-10)


def test_a_quiet_dimension_weighs_as_much_as_a_loud_one() -> None:
    x_hat, x = rows(50)
    assert r2(x_hat=x_hat, x=x) > 0.9
    assert r2_uniform(x_hat=x_hat, x=x) < 0


@pytest.mark.parametrize("constant", [0.1, 1e8 / 3])
def test_constant_dimensions_are_left_out(constant: float) -> None:
    x_hat, x = rows(50)
    others = r2_uniform(x_hat=x_hat[:, :3], x=x[:, :3])
    x[:, 3] = constant
    metric = R2Uniform(4)
    for part in range(0, 50, 7):
        metric.update(x_hat=x_hat[part : part + 7], x=x[part : part + 7])
    torch.testing.assert_close(metric.compute(), others, rtol=1e-12, atol=0)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    x_hat, x = rows(50)
    far = r2_uniform(x_hat=x_hat + 2.0**20, x=x + 2.0**20)
    torch.testing.assert_close(far, r2_uniform(x_hat=x_hat, x=x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [0, 1])
def test_without_variance_there_is_none(n: int) -> None:
    x_hat, x = rows(2)
    assert r2_uniform(x_hat=x_hat[:n], x=x[:n]).isnan()


def test_another_width_is_refused() -> None:
    x_hat, x = rows(2)
    with pytest.raises(LightsaeError, match="x has width 4, expected d_in = 5"):
        R2Uniform(5).update(x_hat=x_hat, x=x)
