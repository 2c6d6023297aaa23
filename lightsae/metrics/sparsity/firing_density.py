"""Firing density: how many latents fire how often."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import Code, size, unpacked
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.sparsity.firings import firings_of

# log10 of the frequency: from one row in ten million to every row, four bins a decade. Fixed, so
# that histograms of several runs lie on one another.
_LOWEST, _BINS_PER_DECADE = -7, 4


class FiringDensities:
    """Histogram of how often latents fire.

    Attributes:
        log10_low: Lower edge of each bin, log10 of the frequency [bins], float64.
        log10_high: Upper edge of each bin [bins], float64; it belongs to the next bin, and in the
            last one, where it is 0, to the bin itself.
        counts: Latents in each bin [bins], int64. Those below the lowest edge are in the first.
        dead: Latents that never fire and so are in no bin, int64 scalar.
        frequency: Share of rows on which each latent fires [d_sae], float64.
    """

    def __init__(
        self, log10_low: Tensor, log10_high: Tensor, counts: Tensor, dead: Tensor, frequency: Tensor
    ) -> None:
        self.log10_low = log10_low
        self.log10_high = log10_high
        self.counts = counts
        self.dead = dead
        self.frequency = frequency


def _firing_density_compute(firings: Tensor, rows: Tensor) -> FiringDensities:
    """Return the histogram."""
    frequency = firings.double() / rows.clamp(min=1)
    steps = torch.arange(_LOWEST * _BINS_PER_DECADE, 1, device=firings.device)
    edges = steps.double() / _BINS_PER_DECADE
    fired = frequency[firings > 0]
    bins = torch.searchsorted(edges, fired.log10(), right=True) - 1
    counts = torch.bincount(bins.clamp(0, len(edges) - 2), minlength=len(edges) - 1)
    return FiringDensities(edges[:-1], edges[1:], counts, (firings == 0).sum(), frequency)


def firing_density(
    values: Code, indices: Tensor | None = None, d_sae: int | None = None
) -> FiringDensities:
    """Histogram of log10 of the share of rows on which a latent fires.

    The "feature density histogram" of Bricken et al. 2023 (Towards Monosemanticity). A latent fires
    where its activation is positive.

    Args:
        values: A `SparseCode`, or activations [..., k].
        indices: Latents [..., k], integers, none twice in a row; a `SparseCode` has them.
        d_sae: Number of latents; a `SparseCode` tells it.

    Returns:
        Bins of a quarter of a decade from 1e-7 to 1, the same for every run.

    Raises:
        LightsaeError: If the shapes differ or a latent is not in the dictionary.

    Example:
        >>> density = firing_density(torch.ones(10, 1), torch.tensor([[0]] + 9 * [[1]]), d_sae=3)
        >>> [(edge.item(), count.item())
        ...  for edge, count in zip(density.log10_low, density.counts) if count]
        [(-1.0, 1), (-0.25, 1)]
        >>> density.dead
        tensor(1)
    """
    values, indices, d_sae = unpacked(values, indices, d_sae)
    rows = torch.tensor(values.shape[:-1].numel(), device=values.device)
    return _firing_density_compute(firings_of(values, indices, d_sae), rows)


class FiringDensity(ExactMetric):
    """Histogram of log10 of the share of rows on which a latent fires; see `firing_density`.

    Args:
        d_sae: Number of latents.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = FiringDensity(d_sae=3)
        >>> metric.update(torch.ones(1, 1), torch.tensor([[0]]))
        >>> metric.update(torch.ones(9, 1), torch.tensor(9 * [[1]]))
        >>> metric.compute().frequency
        tensor([0.1000, 0.9000, 0.0000], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    firings: Tensor
    rows: Tensor

    def __init__(self, d_sae: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae = size("d_sae", d_sae)
        self.add_state("firings", torch.zeros(self.d_sae, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Code, indices: Tensor | None = None) -> None:
        """Add a batch of codes.

        Args:
            values: A `SparseCode`, or activations [..., k].
            indices: Latents [..., k], integers; a `SparseCode` has them.

        Raises:
            LightsaeError: If the shapes differ or a latent is not in the dictionary.
        """
        values, indices, d_sae = unpacked(values, indices, self.d_sae)
        self.firings = self.firings + firings_of(values, indices, d_sae)
        self.rows = self.rows + values.shape[:-1].numel()

    def compute(self) -> FiringDensities:
        """Return the histogram."""
        return _firing_density_compute(self.firings, self.rows)
