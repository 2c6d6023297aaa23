"""What uniform R2 and NMSE sum over rows, for metrics that share one look at each row.

Moments are float64 [4, d_in]: rows, residual and total sum of squares, mean.
"""

import torch
from torch import Tensor


def dimension_moments(x: Tensor, missed: Tensor) -> Tensor:
    """Return the moments of rows, over which it writes.

    Args:
        x: Rows [rows, d_in], float64.
        missed: (x - x_hat)^2.
    """
    # Measured from the first row, a constant dimension has a total of exactly zero.
    shift = x[:1].sum(0)
    offset = x.sub_(shift).sum(0) / max(len(x), 1)
    total = x.sub_(offset).square_().sum(0)
    return torch.stack([torch.full_like(total, len(x)), missed.sum(0), total, shift + offset])


def merge_dimension_moments(parts: Tensor) -> Tensor:
    """Merge moments [parts, 4, d_in] (Chan et al. 1983)."""
    rows, residual, total, means = parts.unbind(1)
    reference = means[rows[:, 0].argmax()]
    weights = rows / rows.sum(0).clamp(min=1)
    mean = reference + (weights * (means - reference)).sum(0)
    between = (rows * (means - mean).square()).sum(0)
    return torch.stack([rows.sum(0), residual.sum(0), total.sum(0) + between, mean])


def r2_uniform_from(moments: Tensor) -> Tensor:
    """Return the mean over the dimensions that vary; NaN without one."""
    _, residual, total, _ = moments
    per_dimension: Tensor = (1 - residual / total).where(total > 0, torch.nan)
    return per_dimension.nanmean()


def sum_of_ratios(x: Tensor, missed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over rows, float64, and how many have a ratio.

    Args:
        x: Rows [rows, d_in], float64.
        missed: (x - x_hat)^2.
    """
    length = x.square().sum(1)
    ratio = missed.sum(1) / length
    return ratio.where(length > 0, 0).sum(), (length > 0).sum()
