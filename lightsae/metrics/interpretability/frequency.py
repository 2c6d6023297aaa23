"""Feature frequency against monosemanticity: are the latents that fire often the vague ones?"""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import Code, after, require_tensors, unpacked
from lightsae.metrics.interpretability.monosemanticity import Monosemanticity
from lightsae.metrics.sparsity.firings import firings_of


def _average_ranks(numbers: Tensor) -> Tensor:
    """Return ranks from 1 on, float64; equal numbers share the mean of theirs."""
    _, groups, counts = numbers.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks: Tensor = last.double() - (counts - 1).double() / 2
    return ranks.index_select(0, groups)


def frequency_correlation(firings: Tensor, scores: Tensor) -> Tensor:
    """Spearman's rank correlation of how often a latent fires with its score.

    Pearson's correlation of the ranks, equal values sharing the mean of their ranks, over the
    latents that have a score.

    Args:
        firings: Firings, or frequency, of each latent [d_sae].
        scores: Score of each latent, such as monosemanticity [d_sae]; NaN where it has none.

    Returns:
        Float64 scalar in [-1, 1]; NaN with fewer than two scored latents, or where all fire equally
        often or score the same.

    Raises:
        LightsaeError: If the shapes differ.

    Example:
        >>> firings, scores = torch.tensor([5, 3, 1, 9]), torch.tensor([0.1, 0.2, 0.4, torch.nan])
        >>> frequency_correlation(firings, scores)
        tensor(-1., dtype=torch.float64)
    """
    require_tensors(firings=firings, scores=scores)
    if firings.shape != scores.shape or scores.ndim != 1:
        raise LightsaeError(
            f"firings and scores have shapes {list(firings.shape)} and {list(scores.shape)}, "
            "expected [d_sae] twice"
        )
    scored = ~scores.isnan()
    left, right = (_average_ranks(each[scored]) for each in (firings, scores))
    left, right = left - left.mean(), right - right.mean()
    spread = left.square().sum() * right.square().sum()
    return ((left * right).sum() / spread.sqrt()).where(spread > 0, torch.nan)


class FrequencyCorrelation(Monosemanticity):
    """Spearman's correlation of firing frequency with monosemanticity, over everything seen.

    See `frequency_correlation` and `monosemanticity` for the definitions.

    Args:
        d_sae: Number of latents.
        d_embed: Width of the embeddings.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = FrequencyCorrelation(d_sae=2, d_embed=2)
        >>> values, indices = torch.ones(5, 1), torch.tensor([[0], [0], [1], [1], [1]])
        >>> embeddings = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> metric.update(values, indices, embeddings)
        >>> metric.compute()
        tensor(-1., dtype=torch.float64)
    """

    firings: Tensor

    def __init__(self, d_sae: int, d_embed: int, **kwargs: object) -> None:
        super().__init__(d_sae, d_embed, **kwargs)
        self.add_state("firings", torch.zeros(self.d_sae).long(), dist_reduce_fx="sum")

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        embeddings: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Add images; see `Monosemanticity.update`."""
        indices, embeddings = after(values, indices, embeddings, "embeddings")
        super().update(values, indices, embeddings, rows)
        values, indices, _ = unpacked(values, indices, self.d_sae)
        self.firings = self.firings + firings_of(values, indices, self.d_sae)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the correlation as a float64 scalar."""
        return frequency_correlation(self.firings, super().compute().scores)
