import math

import pytest
import torch
from scipy.stats import spearmanr

from lightsae.errors import LightsaeError
from lightsae.metrics import frequency_correlation


@pytest.mark.parametrize("levels", [3, 1000])
def test_it_is_spearman_s_correlation_with_ties(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    firings = torch.randint(levels, (60,), generator=generator)
    scores = torch.randint(levels, (60,), generator=generator).double() - firings / 3
    expected = spearmanr(firings.numpy(), scores.numpy()).statistic
    assert frequency_correlation(firings, scores).item() == pytest.approx(expected, abs=1e-12)


def test_latents_without_a_score_do_not_count() -> None:
    scores = torch.tensor([0.1, torch.nan, 0.2, 0.3])
    assert frequency_correlation(torch.tensor([1, 99, 2, 3]), scores) == 1


@pytest.mark.parametrize(
    ("firings", "scores"),
    [
        ([], []),
        ([1], [0.5]),
        ([2, 2], [0.1, 0.2]),
        ([1, 2], [0.3, 0.3]),
        ([1, 2], [math.nan, math.nan]),
    ],
)
def test_without_an_order_there_is_none(firings: list[int], scores: list[float]) -> None:
    given = torch.tensor(firings, dtype=torch.long), torch.tensor(scores, dtype=torch.float64)
    assert frequency_correlation(*given).isnan()


def test_other_lengths_are_refused() -> None:
    with pytest.raises(LightsaeError, match=r"have shapes \[2\] and \[3\], expected \[d_sae\]"):
        frequency_correlation(torch.zeros(2), torch.zeros(3))
