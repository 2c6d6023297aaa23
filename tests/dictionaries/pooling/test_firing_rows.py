"""Co-firing of latents of several dictionaries."""

import pytest
import torch

from lightsae.dictionaries.pooling.firing_rows import FiringRows
from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode

from .test_unique_latents import code_of


def test_counts_and_overlaps_over_ragged_batches_are_those_of_the_definition() -> None:
    fires = torch.rand(31, 11, generator=torch.Generator().manual_seed(1)) < 0.3
    firings = FiringRows([7, 4])
    for part in fires.double().split(8):
        firings.update([code_of(part[:, :7]), code_of(part[:, 7:])])
    both = (fires[:, :, None] & fires[:, None]).sum(dim=0).double()
    either = (fires[:, :, None] | fires[:, None]).sum(dim=0).double()
    latents, others = torch.tensor([9, 0, 0]), torch.arange(11)
    assert firings.rows == 31
    assert torch.equal(firings.counts(), fires.sum(dim=0))
    torch.testing.assert_close(firings.iou(latents, others), (both / either)[latents])


def test_what_never_fires_has_no_overlap_even_with_itself() -> None:
    firings = FiringRows([2])
    firings.update([code_of(torch.tensor([[1.0, 0.0]]))])
    latents = torch.arange(2)
    assert firings.iou(latents, latents).tolist() == [[1, 0], [0, 0]]


def test_a_latent_twice_in_a_row_fires_once() -> None:
    firings = FiringRows([3])
    firings.update([SparseCode(torch.ones(1, 2), torch.tensor([[1, 1]]), 3)])
    assert firings.counts().tolist() == [0, 1, 0]


def test_codes_of_other_rows_or_sizes_are_refused() -> None:
    firings = FiringRows([3, 3])
    code = code_of(torch.ones(2, 3))
    for others in ([code], [code, code_of(torch.ones(2, 4))], [code, code_of(torch.ones(1, 3))]):
        with pytest.raises(LightsaeError, match=r"expected d_sae \[3, 3\] of the same rows"):
            firings.update(others)
