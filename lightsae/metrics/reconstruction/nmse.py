"""NMSE: what a reconstruction misses of a row, as a share of the row's own length."""

import torch
from torch import Tensor

from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.reconstruction.reconstruction_inputs import (
    by_name,
    matching_rows,
    row_blocks,
    wide_copy,
)
from lightsae.metrics.reconstruction.row_sums import sum_of_ratios


def _nmse_update(x_hat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the ratios (float64) and the number of rows that have one (int64)."""
    blocks = zip(row_blocks(x_hat), row_blocks(x), strict=True)
    parts = [_ratios(*block) for block in blocks]
    total, rows = (torch.stack(each).sum() for each in zip(*parts, strict=True))
    return total, rows


def _ratios(x_hat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same of a block of rows."""
    x, missed = x.double(), wide_copy(x_hat)
    return sum_of_ratios(x, missed.sub_(x).square_())


def _nmse_compute(total: Tensor, rows: Tensor) -> Tensor:
    """Return the mean ratio; NaN without rows."""
    return total / rows


@by_name
def nmse(*, x_hat: Tensor, x: Tensor) -> Tensor:
    """Normalised mean squared error of reconstructions.

    `mean_i ||x_i - x_hat_i||^2 / ||x_i||^2`, a ratio per row and not centred, as in the code
    released with arXiv 2406.04093 (Gao et al.). It is not `1 - r2`, which divides by the spread
    around the mean; where that mean is long, NMSE is far smaller. Rows of zeros have no ratio and
    are left out.

    Args:
        x_hat: Reconstructions [..., d_in], any float dtype.
        x: Inputs [..., d_in].

    Returns:
        Float64 scalar; NaN where no row has a ratio.

    Raises:
        LightsaeError: If the shapes differ, or they are given by position.

    Example:
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> nmse(x_hat=torch.tensor([[3.0, 4.0], [0.0, 1.0]]), x=x)
        tensor(0.1250, dtype=torch.float64)
    """
    return _nmse_compute(*_nmse_update(*matching_rows(x_hat, x)))


class NMSE(ExactMetric):
    """Normalised mean squared error of reconstructions, over everything seen.

    See `nmse` for the definition.

    Args:
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = NMSE()
        >>> metric.update(x_hat=torch.tensor([[3.0, 4.0]]), x=torch.tensor([[3.0, 4.0]]))
        >>> metric.update(x_hat=torch.tensor([[0.0, 1.0]]), x=torch.tensor([[0.0, 2.0]]))
        >>> metric.compute()
        tensor(0.1250, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    rows: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    @by_name
    def update(self, *, x_hat: Tensor, x: Tensor) -> None:
        """Add a batch, both given by name.

        Args:
            x_hat: Reconstructions [..., d_in].
            x: Inputs [..., d_in].

        Raises:
            LightsaeError: If the shapes differ, or they are given by position.
        """
        total, rows = _nmse_update(*matching_rows(x_hat, x))
        self.total = self.total + total
        self.rows = self.rows + rows

    def compute(self) -> Tensor:
        """Return NMSE as a float64 scalar; NaN when no row had a ratio."""
        return _nmse_compute(self.total, self.rows)
