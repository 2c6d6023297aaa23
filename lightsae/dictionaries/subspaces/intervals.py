"""Intervals of figures of which some may be undefined."""

import math
from collections.abc import Iterable

from lightsae.metrics.comparison.intervals import Interval, t_interval


def defined_interval(values: Iterable[float]) -> Interval:
    """Student's t interval of those that are numbers; see `t_interval`.

    Args:
        values: One of each seed, or of each pair of seeds; NaN where it is undefined.

    Returns:
        The interval, whose `seeds` counts the numbers; NaN, 0 of them, where there is none.

    Example:
        >>> defined_interval([1.0, math.nan, 3.0])[0], defined_interval([])
        (2.0, Interval(mean=nan, low=nan, high=nan, seeds=0))
    """
    found = [value for value in values if math.isfinite(value)]
    return t_interval(found) if found else Interval(math.nan, math.nan, math.nan, 0)
