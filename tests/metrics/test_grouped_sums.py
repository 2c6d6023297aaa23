import pytest
import torch

from lightsae.metrics.grouped_sums import grouped_sums

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("n", [0, 1, 500])
def test_sums_of_groups_some_of_them_empty(device: str, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(7, (n,), generator=generator)
    values = torch.rand(n, generator=generator, dtype=torch.float64)
    expected = [sum(values[groups == group].tolist()) for group in range(9)]
    found = grouped_sums(values.to(device), groups.to(device), 9)
    assert found.tolist() == pytest.approx(expected)
