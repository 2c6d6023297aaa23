"""Confidence intervals over seeds."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from lightsae.errors import LightsaeError
from lightsae.extras import require


class Interval(NamedTuple):
    """A mean and its confidence interval.

    Attributes:
        mean: Mean over seeds.
        low: Lower end; NaN with a single seed.
        high: Upper end; NaN with a single seed.
        seeds: How many seeds there were.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether zero is outside the interval; never with a single seed."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of a mean over seeds.

    `mean +- t s / sqrt(n)` with s the standard deviation (n - 1) and t the quantile of Student's
    distribution with n - 1 degrees of freedom at (1 + level) / 2. Of differences between two runs
    of the same seed it is the paired interval.

    Args:
        values: One figure per seed, such as a difference of two runs of that seed.
        level: Coverage, between 0 and 1.

    Raises:
        LightsaeError: If there is none, one is not finite or the level is no share.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> interval = t_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.low, 3), round(interval.high, 3)
        (2.0, -0.484, 4.484)
    """
    if not 0 < level < 1:
        raise LightsaeError(f"level = {level}, expected a share between 0 and 1")
    if len(values) == 0 or not all(map(math.isfinite, values)):
        raise LightsaeError(f"values = {list(values)}, expected at least one, all finite")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    stats = require("scipy.stats", extra="evaluation")
    quantile = float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    half = quantile * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))
