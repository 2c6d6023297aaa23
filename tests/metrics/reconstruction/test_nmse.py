import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import NMSE, nmse, r2
from tests.metrics import references


def rows(n: int, mean: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = mean + torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x + 0.4 * torch.randn(n, 6, generator=generator, dtype=torch.float64), x


@pytest.mark.parametrize("n", [1, 2, 33])
def test_the_mean_over_rows_of_their_own_ratio(n: int) -> None:
    x_hat, x = rows(n)
    assert nmse(x_hat=x_hat, x=x).item() == pytest.approx(references.nmse(x_hat, x), rel=1e-12)


def test_it_is_not_centred() -> None:
    x_hat, x = rows(200, mean=50.0)
    assert nmse(x_hat=x_hat, x=x) < 1e-3
    assert 1 - r2(x_hat=x_hat, x=x) > 0.1


def test_rows_of_zeros_have_no_ratio() -> None:
    x_hat, x = rows(5)
    x[2] = 0
    assert nmse(x_hat=x_hat, x=x).item() == pytest.approx(references.nmse(x_hat, x), rel=1e-12)
    assert nmse(x_hat=x_hat[2:3], x=x[2:3]).isnan()


def test_perfect_and_zero_reconstructions() -> None:
    _, x = rows(5)
    assert nmse(x_hat=x, x=x) == 0
    assert nmse(x_hat=torch.zeros_like(x), x=x) == 1


def test_half_precision_is_summed_in_float64() -> None:
    x_hat, x = (each.half() for each in rows(3000))
    expected = references.nmse(x_hat.double(), x.double())
    assert nmse(x_hat=x_hat, x=x).item() == pytest.approx(expected, rel=1e-12)


def test_tokens_are_rows() -> None:
    x_hat, x = rows(12)
    shaped = nmse(x_hat=x_hat.view(3, 4, 6), x=x.view(3, 4, 6))
    assert torch.equal(shaped, nmse(x_hat=x_hat, x=x))


def test_other_shapes_and_positions_are_refused() -> None:
    x_hat, x = rows(3)
    with pytest.raises(LightsaeError, match=r"x_hat has shape \[2, 6\], expected x's \[3, 6\]"):
        nmse(x_hat=x_hat[:2], x=x)
    with pytest.raises(LightsaeError, match="takes x_hat and x by name"):
        NMSE().update(x_hat, x)  # type: ignore[call-arg, misc]
