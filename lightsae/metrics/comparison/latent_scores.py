"""Scores of two autoencoders, latent by latent and rank by rank."""

from typing import NamedTuple

from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors


class LatentDifferences(NamedTuple):
    """What changed, over the latents that have a score in both.

    Attributes:
        differences: Score less the baseline's [d_sae], float64; NaN where one of them is missing.
        mean: Mean over the latents scored in both, float64 scalar; NaN without one.
        both: Latents scored in both.
        only: Latents scored here but not in the baseline.
        only_baseline: Latents scored in the baseline but not here.
    """

    differences: Tensor
    mean: Tensor
    both: int
    only: int
    only_baseline: int


class RankDifferences(NamedTuple):
    """What changed at equal rank: the r-th best of each.

    Attributes:
        scores: Scores in descending order [ranks], float64.
        baseline: The baseline's [ranks], float64.
        mean: Mean difference over the ranks that both have, float64 scalar; NaN without one.
    """

    scores: Tensor
    baseline: Tensor
    mean: Tensor


def _checked(scores: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Raise on what is no [d_sae]."""
    require_tensors(scores=scores, baseline=baseline)
    for name, each in (("scores", scores), ("baseline", baseline)):
        if each.ndim != 1:
            raise LightsaeError(f"{name} has shape {list(each.shape)}, expected [d_sae]")
    return scores.double(), baseline.double()


def latent_differences(scores: Tensor, baseline: Tensor) -> LatentDifferences:
    """Paired difference of two sets of scores, over the latents scored in both.

    For two runs that start from the same seed, so that a latent is the same one at the start. A
    mean over each run's own survivors also moves when a method silences its worst latents; this
    one does not.

    Args:
        scores: Score of each latent [d_sae], such as monosemanticity; NaN where it has none.
        baseline: The baseline's [d_sae].

    Raises:
        LightsaeError: If the shapes differ.

    Example:
        >>> import torch
        >>> nan = torch.nan
        >>> latent_differences(torch.tensor([0.5, 0.5, nan]), torch.tensor([0.25, nan, 0.1]))[1:]
        (tensor(0.2500, dtype=torch.float64), 1, 1, 1)
    """
    scores, baseline = _checked(scores, baseline)
    if scores.shape != baseline.shape:
        raise LightsaeError(
            f"scores and baseline have {len(scores)} and {len(baseline)} latents, expected the same"
        )
    here, there = ~scores.isnan(), ~baseline.isnan()
    differences = scores - baseline
    return LatentDifferences(
        differences,
        differences.nanmean(),
        int((here & there).sum()),
        int((here & ~there).sum()),
        int((~here & there).sum()),
    )


def rank_differences(scores: Tensor, baseline: Tensor) -> RankDifferences:
    """Two sets of scores at equal rank: best against best, r-th best against r-th best.

    Up to the rank that both reach, so a run does not gain by silencing its worst latents. The two
    need not have the same d_sae.

    Args:
        scores: Score of each latent [d_sae]; NaN where it has none.
        baseline: The baseline's.

    Raises:
        LightsaeError: If one is not [d_sae].

    Example:
        >>> import torch
        >>> nan = torch.nan
        >>> rank_differences(torch.tensor([0.2, nan, 0.9]), torch.tensor([0.3, 0.1, 0.7])).mean
        tensor(0.0500, dtype=torch.float64)
    """
    best = [each[~each.isnan()].sort(descending=True).values for each in _checked(scores, baseline)]
    ranks = min(map(len, best))
    scores, baseline = (each[:ranks] for each in best)
    return RankDifferences(scores, baseline, (scores - baseline).mean())
