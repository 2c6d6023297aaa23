import pytest
import torch

from lightsae.metrics import FiringDensity, firing_density
from tests.metrics import references


@pytest.mark.parametrize("seed", range(3))
def test_the_histogram_is_of_dense_columns(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(100, 50, generator=generator, dtype=torch.float64)
    dense = dense * (dense < torch.rand(50, generator=generator).pow(4))
    dense[:, 0], dense[:, 1] = 1, 0
    values, indices = dense.topk(int((dense > 0).sum(1).max()), dim=1)
    density = firing_density(values, indices, d_sae=50)
    assert density.counts.tolist() == references.firing_density(dense)
    assert density.counts.sum() + density.dead == 50
    assert torch.equal(density.frequency, (dense > 0).double().mean(0))


def test_bins_are_quarters_of_a_decade_up_to_every_row() -> None:
    density = firing_density(torch.ones(1, 1), torch.zeros(1, 1).long(), d_sae=1)
    assert (density.log10_low[0], density.log10_high[-1]) == (-7, 0)
    assert torch.equal(density.log10_low[1:], density.log10_high[:-1])
    assert density.counts.tolist() == [0] * 27 + [1]


def test_what_fires_more_rarely_than_the_lowest_edge_is_in_the_first_bin() -> None:
    metric = FiringDensity(1)
    metric.update(torch.ones(1, 1), torch.zeros(1, 1).long())
    metric.rows += 10**9
    assert metric.compute().counts[0] == 1


def test_zero_fill_ins_do_not_fire() -> None:
    density = firing_density(torch.zeros(3, 1), torch.zeros(3, 1).long(), d_sae=2)
    assert (density.dead, density.counts.sum()) == (2, 0)
