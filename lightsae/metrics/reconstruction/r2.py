"""Explained variance R2, merged exactly over batches and ranks."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import size
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.reconstruction.r2_moments import (
    SCALARS,
    merge_moments,
    moments,
    r2_from_moments,
)
from lightsae.metrics.reconstruction.reconstruction_inputs import by_name, matching_rows


@by_name
def r2(*, x_hat: Tensor, x: Tensor) -> Tensor:
    """Share of the variance of `x` that `x_hat` explains.

    `1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2`, with the mean taken per dimension. All sums
    are float64, so that a mean far larger than the standard deviation costs no digits. Both are
    given by name.

    Args:
        x_hat: Reconstructions [..., d_in], any float dtype.
        x: Inputs [..., d_in].

    Returns:
        Float64 scalar, at most 1; NaN when `x` does not vary (one row, or constant data), because
        there is nothing to explain.

    Raises:
        LightsaeError: If the shapes differ, or they are given by position.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> r2(x_hat=x + 0.5, x=x)
        tensor(0.9062, dtype=torch.float64)
    """
    return r2_from_moments(moments(*matching_rows(x_hat, x)))


class R2(ExactMetric):
    """Share of the variance of x that x_hat explains, over everything seen.

    The state is the float64 count, residual, total and mean; parts are merged with Chan's formula,
    so neither the split into batches nor the number of processes changes the result, and a mean far
    larger than the standard deviation costs no digits. See `r2` for the definition.

    Args:
        d_in: Width of the inputs.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> metric = R2(d_in=2)
        >>> for row in x:
        ...     metric.update(x_hat=row[None] + 0.5, x=row[None])
        >>> metric.compute()
        tensor(0.9062, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    moments: Tensor

    def __init__(self, d_in: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_in = size("d_in", d_in)
        empty = torch.zeros(SCALARS + self.d_in, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=merge_moments)

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
        added = moments(*matching_rows(x_hat, x, self.d_in))
        self.moments = merge_moments(torch.stack([self.moments, added]))

    def compute(self) -> Tensor:
        """Return R2 as a float64 scalar; NaN when nothing seen so far varies."""
        return r2_from_moments(self.moments)
