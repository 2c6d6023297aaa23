import math

import pytest
import torch

from lightsae.metrics import hoyer
from tests.metrics import references


def test_one_latent_is_one_and_all_alike_are_zero() -> None:
    indices = torch.arange(9).unsqueeze(0)
    assert hoyer(torch.ones(1, 1), indices[:, :1], d_sae=9) == 1
    assert hoyer(torch.full((1, 9), 0.3).double(), indices, d_sae=9).abs() < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_it_is_hoyer_s_formula_of_dense_rows(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(40, 5, generator=generator, dtype=torch.float64).relu()
    indices = torch.rand(40, 17, generator=generator).topk(5, dim=1).indices
    expected = references.hoyer(references.dense(values, indices, 17))
    assert hoyer(values, indices, d_sae=17).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_scale_of_a_row_does_not_matter(scale: float) -> None:
    values, indices = torch.tensor([[3.0, 1.0]]).double(), torch.tensor([[0, 1]])
    expected = hoyer(values, indices, d_sae=6)
    torch.testing.assert_close(hoyer(scale * values, indices, d_sae=6), expected)


def test_silent_rows_are_left_out() -> None:
    values, indices = torch.tensor([[2.0, 1.0], [0.0, 0.0]]), torch.tensor([[0, 1], [0, 1]])
    assert torch.equal(hoyer(values, indices, d_sae=4), hoyer(values[:1], indices[:1], d_sae=4))
    assert hoyer(values[1:], indices[1:], d_sae=4).isnan()


def test_a_dictionary_of_one_has_no_sparsity() -> None:
    assert math.isnan(hoyer(torch.ones(2, 1), torch.zeros(2, 1).long(), d_sae=1))
