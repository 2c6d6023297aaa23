import pytest
import torch
from torch import nan

from lightsae.errors import LightsaeError
from lightsae.metrics import latent_differences, rank_differences

OURS = torch.tensor([0.5, 0.9, nan, 0.4, nan])
BASE = torch.tensor([0.4, nan, 0.1, 0.2, nan])


def test_differences_are_over_latents_scored_in_both() -> None:
    found = latent_differences(OURS, BASE)
    assert found.differences.isnan().tolist() == [False, True, True, False, True]
    assert found.mean.item() == pytest.approx(0.15)
    assert (found.both, found.only, found.only_baseline) == (2, 1, 1)


def test_silencing_the_worst_latents_gains_nothing() -> None:
    base = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    ours = base.clone()
    ours[:4] = nan
    assert ours.nanmean() > base.mean()
    assert latent_differences(ours, base).mean == 0
    assert rank_differences(ours, base).mean == 0


def test_ranks_are_compared_to_the_one_that_both_reach() -> None:
    found = rank_differences(OURS, torch.tensor([0.3, 0.8]))
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.baseline.tolist() == pytest.approx([0.8, 0.3])
    assert found.mean.item() == pytest.approx(0.15)


def test_without_a_latent_in_both_there_is_no_mean() -> None:
    assert latent_differences(torch.tensor([nan, 1.0]), torch.tensor([1.0, nan])).mean.isnan()
    assert rank_differences(torch.tensor([nan]), torch.tensor([1.0])).mean.isnan()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(LightsaeError, match="have 5 and 3 latents, expected the same"):
        latent_differences(OURS, BASE[:3])
    with pytest.raises(LightsaeError, match=r"baseline has shape \[5, 1\], expected \[d_sae\]"):
        rank_differences(OURS, BASE.unsqueeze(1))
