"""Initial input scale and decoder bias, estimated from a sample of the data."""

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae.normalization import Normalization, normalize_rows, row_statistics

Centre: TypeAlias = Literal["mean", "geometric_median"]


class InputStatistics(NamedTuple):
    """Scale and centre of a sample of inputs.

    Attributes:
        scale: What inputs are divided by, a float64 scalar.
        centre: Mean or geometric median, [d_in] float64, in the units of the inputs; where these
            are normalised by row, in those of normalised rows.
    """

    scale: Tensor
    centre: Tensor


def input_statistics(
    sample: Tensor, centre: Centre = "mean", normalization: Normalization = "variance"
) -> InputStatistics:
    """Scale and centre of inputs.

    Args:
        sample: Inputs, [rows, d_in].
        centre: "mean", or "geometric_median" as in arXiv 2406.04093.
        normalization: What they are for.
            variance: the scale is sqrt(mean ||x - mean(x)||^2), so that the loss of a mean
            predictor is 1. none: scale 1, centre 0. centre: scale 1. centre_scale: the mean norm
            of (x - centre) / scale is sqrt(d_in). layer_norm, layer_norm_unbiased, unit_norm:
            scale 1.

    Raises:
        LightsaeError: If the sample is empty, has NaN or inf, or all its rows are equal.

    Example:
        >>> import torch
        >>> input_statistics(torch.tensor([[1.0, 0.0], [1.0, 4.0]]))
        InputStatistics(scale=tensor(2., dtype=torch.float64), \
centre=tensor([1., 2.], dtype=torch.float64))
    """
    if len(sample) == 0:
        raise LightsaeError("the sample that sets the input scale has no rows")
    statistics = row_statistics(sample, normalization)
    if statistics is not None:
        sample = normalize_rows(sample, statistics, normalization)
    mean = sample.mean(dim=0, dtype=torch.float64)
    variance = sum(
        ((rows.double() - mean).square().sum() for rows in sample.split(4096)), torch.zeros(())
    )
    scale = (variance / len(sample)).sqrt()
    if not torch.isfinite(scale):
        raise LightsaeError("the training sample has NaN or infinite values")
    if not scale > 0 or bool((sample == sample[0]).all()):
        raise LightsaeError(f"all {len(sample)} rows of the training sample are equal")
    if normalization == "none":
        return InputStatistics(torch.ones_like(scale), torch.zeros_like(mean))
    middle = mean if centre == "mean" else geometric_median(sample)
    if normalization == "centre_scale":
        scale = _mean_distance(sample, middle) / math.sqrt(sample.shape[1])
    elif normalization != "variance":
        scale = torch.ones_like(scale)
    return InputStatistics(scale, middle)


def _mean_distance(sample: Tensor, point: Tensor) -> Tensor:
    """Mean l2 distance of rows from a point, float64."""
    distances = [
        torch.linalg.vector_norm(rows.double() - point, dim=1) for rows in sample.split(4096)
    ]
    return torch.cat(distances).mean()


def geometric_median(sample: Tensor, steps: int = 100, tolerance: float = 1e-9) -> Tensor:
    """Point with the least summed distance to the rows, by Weiszfeld's iteration.

    Args:
        sample: Inputs, [rows, d_in].
        steps: Most iterations.
        tolerance: Stops when a step is shorter than this times the point's distance to the rows.

    Returns:
        [d_in] float64.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.0], [0.0], [9.0]])
        >>> geometric_median(rows).abs().max() < 1e-3
        tensor(True)
    """
    median = sample.mean(dim=0, dtype=torch.float64)
    for _ in range(steps):
        weighted, total = torch.zeros_like(median), median.new_zeros(())
        for rows in sample.split(4096):
            wide = rows.double()
            weight = 1 / torch.linalg.vector_norm(wide - median, dim=1).clamp_min(1e-12)
            weighted += weight @ wide
            total += weight.sum()
        step = weighted / total - median
        median += step
        if torch.linalg.vector_norm(step) <= tolerance * len(sample) / total:
            break
    return median
