"""Sums of weighted rows, with and without a library for sparse products."""

import pytest
import torch

from lightsae.metrics.interpretability.weighted_rows import add_weighted_rows_


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_sum_gets_its_entries(
    library: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library and not torch.backends.mkl.is_available():
        pytest.skip("torch was built without it")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: library)
    torch.manual_seed(0)
    rows = torch.randn(11, 5, dtype=dtype)
    counts = torch.tensor([0, 4, 0, 17, 1, 0])
    weights, places = torch.rand(22, dtype=dtype), torch.randint(11, (22,))
    sums = torch.randn(6, 5, dtype=dtype)
    dense = torch.zeros(6, 11, dtype=torch.float64)
    owners = torch.arange(6).repeat_interleave(counts)
    dense.index_put_((owners, places), weights.double(), accumulate=True)
    expected = sums.double() + dense @ rows.double()
    add_weighted_rows_(sums, rows, weights, places, counts)
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(sums.double(), expected, rtol=tolerance, atol=tolerance)


def test_nothing_is_added_where_nothing_fires() -> None:
    sums, none = torch.ones(2, 3), torch.zeros(0)
    add_weighted_rows_(sums, torch.ones(4, 3), none, none.long(), torch.zeros(2).long())
    assert torch.equal(sums, torch.ones(2, 3))
