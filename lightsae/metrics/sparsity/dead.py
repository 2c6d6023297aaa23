"""Dead latents: those that never fire on a data set."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import Code, size, unpacked
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.sparsity.firings import firings_of


def _dead_latents_compute(firings: Tensor, normalize: bool) -> Tensor:
    """Return the number of latents without firings, or their share."""
    dead = firings == 0
    return dead.double().mean() if normalize else dead.sum()


def dead_latents(
    values: Code,
    indices: Tensor | None = None,
    d_sae: int | None = None,
    *,
    normalize: bool = False,
) -> Tensor:
    """Count the latents that never fire.

    A latent fires when its activation is positive: a zero fill-in is not a firing.

    Args:
        values: A `SparseCode`, or activations [..., k].
        indices: Latents [..., k], integers; a `SparseCode` has them.
        d_sae: Number of latents; a `SparseCode` tells it.
        normalize: Return the share of d_sae in place of the count.

    Returns:
        Int64 scalar, or a float64 one with `normalize`.

    Raises:
        LightsaeError: If the shapes differ or a latent is not in the dictionary.

    Example:
        >>> from lightsae.sae import SparseCode
        >>> values, indices = torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 0]])
        >>> dead_latents(values, indices, d_sae=4)
        tensor(3)
        >>> dead_latents(SparseCode(values, indices, d_sae=4))
        tensor(3)
    """
    return _dead_latents_compute(firings_of(*unpacked(values, indices, d_sae)), normalize)


class DeadLatents(ExactMetric):
    """Number (or share) of latents that never fired, over everything seen.

    In a `MetricCollection` the count and the share keep one common state.

    Args:
        d_sae: Number of latents.
        normalize: Report the share of d_sae in place of the count.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = DeadLatents(d_sae=4)
        >>> metric.update(torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 0]]))
        >>> metric.compute()
        tensor(3)
        >>> metric.firings
        tensor([0, 0, 0, 1])
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    firings: Tensor

    def __init__(self, d_sae: int, *, normalize: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae = size("d_sae", d_sae)
        self.normalize = normalize
        self.add_state("firings", torch.zeros(self.d_sae, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, values: Code, indices: Tensor | None = None) -> None:
        """Add a batch of codes.

        Args:
            values: A `SparseCode`, or activations [..., k].
            indices: Latents [..., k], integers; a `SparseCode` has them.

        Raises:
            LightsaeError: If the shapes differ or a latent is not in the dictionary.
        """
        self.firings = self.firings + firings_of(*unpacked(values, indices, self.d_sae))

    def compute(self) -> Tensor:
        """Return the count as int64, or the share as float64."""
        return _dead_latents_compute(self.firings, self.normalize)
