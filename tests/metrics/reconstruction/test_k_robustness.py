import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import KRobustness, k_around, k_robustness, nmse, r2
from lightsae.sae import SparseAutoencoder, SparseCode, TopK


@pytest.mark.parametrize(
    ("k", "d_sae", "expected"),
    [
        (32, 8192, (8, 16, 24, 32, 48, 64, 96, 128)),
        (1, 100, (1, 2, 3, 4)),
        (8, 10, (2, 4, 6, 8)),
        (1, 1, (1,)),
    ],
)
def test_k_from_a_quarter_to_four_times(k: int, d_sae: int, expected: tuple[int, ...]) -> None:
    assert k_around(k, d_sae) == expected


def test_the_curve_of_an_autoencoder() -> None:
    torch.manual_seed(0)
    sae = SparseAutoencoder(6, 24, TopK(4)).double()
    x = torch.randn(40, 6, dtype=torch.float64)
    ks = k_around(4, 24)
    whole = sae.encode(x, k=ks[-1])
    prefixes = [SparseCode(whole.values[:, :k], whole.indices[:, :k], 24) for k in ks]
    curve = k_robustness(x_hat=torch.stack([sae.decode(code) for code in prefixes]), x=x, k=ks)
    assert curve.k.tolist() == list(ks)
    for point, k in enumerate(ks):
        x_hat = sae.decode(sae.encode(x, k=k))
        torch.testing.assert_close(curve.nmse[point], nmse(x_hat=x_hat, x=x), rtol=1e-10, atol=0)
        torch.testing.assert_close(curve.r2[point], r2(x_hat=x_hat, x=x), rtol=1e-10, atol=0)


def test_a_single_k_is_a_curve_of_one_point() -> None:
    x = torch.randn(3, 2)
    curve = k_robustness(x_hat=x.unsqueeze(0), x=x, k=[5])
    assert (curve.k.shape, curve.nmse.tolist(), curve.r2.tolist()) == ((1,), [0.0], [1.0])


@pytest.mark.parametrize("k", [[], [2, 1], [3, 3]])
def test_k_that_do_not_ascend_are_refused(k: list[int]) -> None:
    with pytest.raises(LightsaeError, match="expected at least one, ascending"):
        KRobustness(3, k)


def test_other_shapes_are_refused() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(LightsaeError, match=r"expected one x for each of 2 k: \[2, 3, 2\]"):
        KRobustness(2, [1, 2]).update(x_hat=x, x=x)
    with pytest.raises(LightsaeError, match=r"x has shape \[\], expected \[\.\.\., d_in\]"):
        k_robustness(x_hat=torch.zeros(1), x=torch.tensor(1.0), k=[1])
    with pytest.raises(LightsaeError, match="x is a list, expected a tensor"):
        k_robustness(x_hat=x, x=[1.0], k=[1])  # type: ignore[arg-type]
