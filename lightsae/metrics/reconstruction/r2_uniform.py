"""Uniform R2: the explained variance of each dimension, then the mean over dimensions."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import size
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.reconstruction.reconstruction_inputs import (
    by_name,
    matching_rows,
    row_blocks,
    wide_copy,
)
from lightsae.metrics.reconstruction.row_sums import (
    dimension_moments,
    merge_dimension_moments,
    r2_uniform_from,
)

_MOMENTS = 4


def _r2_uniform_update(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the moments of a batch [rows, d_in]."""
    blocks = zip(row_blocks(x_hat), row_blocks(x), strict=True)
    return merge_dimension_moments(torch.stack([_block_moments(*block) for block in blocks]))


def _block_moments(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the moments of rows [rows, d_in]."""
    x, missed = wide_copy(x), wide_copy(x_hat)
    return dimension_moments(x, missed.sub_(x).square_())


@by_name
def r2_uniform(*, x_hat: Tensor, x: Tensor) -> Tensor:
    """Explained variance per dimension, averaged over dimensions with equal weight.

    `mean_d (1 - sum_i (x_id - x_hat_id)^2 / sum_i (x_id - mean_d)^2)`, the R2 of MonoLoss
    (arXiv 2602.12403). Every dimension weighs the same, where `r2` weighs it by its variance: one
    badly reconstructed quiet dimension can make this figure negative. Constant dimensions, of which
    there is nothing to explain, are left out of the mean, whatever their reconstruction
    (scikit-learn's `r2_score` counts them as 1 or 0).

    Args:
        x_hat: Reconstructions [..., d_in], any float dtype.
        x: Inputs [..., d_in].

    Returns:
        Float64 scalar, at most 1; NaN when no dimension varies.

    Raises:
        LightsaeError: If the shapes differ, or they are given by position.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 7.0], [2.0, 4.0, 7.0]])
        >>> r2_uniform(x_hat=x + torch.tensor([1.0, 1.0, 0.0]), x=x)
        tensor(0.3750, dtype=torch.float64)
    """
    return r2_uniform_from(_r2_uniform_update(*matching_rows(x_hat, x)))


class R2Uniform(ExactMetric):
    """Explained variance per dimension, averaged over dimensions, over everything seen.

    The state is float64 [4, d_in]; parts are merged with Chan's formula, so neither the split into
    batches nor the number of processes changes the result. See `r2_uniform` for the definition.

    Args:
        d_in: Width of the inputs.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 7.0], [2.0, 4.0, 7.0]])
        >>> metric = R2Uniform(d_in=3)
        >>> for row in x:
        ...     metric.update(x_hat=row[None] + torch.tensor([1.0, 1.0, 0.0]), x=row[None])
        >>> metric.compute()
        tensor(0.3750, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    moments: Tensor

    def __init__(self, d_in: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_in = size("d_in", d_in)
        empty = torch.zeros(_MOMENTS, self.d_in, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=merge_dimension_moments)

    @by_name
    def update(self, *, x_hat: Tensor, x: Tensor) -> None:
        """Add a batch, both given by name.

        Args:
            x_hat: Reconstructions [..., d_in].
            x: Inputs [..., d_in].

        Raises:
            LightsaeError: If the shapes differ, the width is not `d_in`, or they are given by
                position.
        """
        added = _r2_uniform_update(*matching_rows(x_hat, x, self.d_in))
        self.moments = merge_dimension_moments(torch.stack([self.moments, added]))

    def compute(self) -> Tensor:
        """Return the mean over dimensions as a float64 scalar; NaN when none varies."""
        return r2_uniform_from(self.moments)
