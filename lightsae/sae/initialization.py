"""Where training starts: the input scale and the decoder bias, from a sample of the data."""

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

Centre: TypeAlias = Literal["mean", "geometric_median"]


class InputStatistics(NamedTuple):
    """Scale and centre of a sample of inputs.

    Attributes:
        scale: sqrt(mean ||x - mean(x)||^2), a float64 scalar.
        centre: Mean or geometric median, [d_in] float64, in the units of the inputs.
    """

    scale: Tensor
    centre: Tensor


def input_statistics(sample: Tensor, centre: Centre = "mean") -> InputStatistics:
    """Scale and centre of inputs, so that the loss of a mean predictor is 1.

    Args:
        sample: Inputs, [rows, d_in].
        centre: "mean", or "geometric_median" as in arXiv 2406.04093.

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
    mean = sample.mean(dim=0, dtype=torch.float64)
    variance = sum(
        ((rows.double() - mean).square().sum() for rows in sample.split(4096)), torch.zeros(())
    )
    scale = (variance / len(sample)).sqrt()
    if not torch.isfinite(scale):
        raise LightsaeError("the training sample has NaN or infinite values")
    if not scale > 0 or bool((sample == sample[0]).all()):
        raise LightsaeError(f"all {len(sample)} rows of the training sample are equal")
    return InputStatistics(scale, mean if centre == "mean" else geometric_median(sample))


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
