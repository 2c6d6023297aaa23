"""Check of labels against the names of their classes, before anything is extracted."""

from typing import Any

import numpy as np

from lightsae.errors import LightsaeError


def check_range(where: str, labels: Any, classes: int) -> None:
    """Refuse labels of which no class is named.

    Args:
        where: What messages call them.
        labels: Integers `[n]`.
        classes: How many classes there are.

    Raises:
        LightsaeError: Naming the smallest and the largest.

    Example:
        >>> check_range("a.npz: labels", [0, 3], 2)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: a.npz: labels has 0 to 3, expected 0 to 1; data.labels \
false takes none
    """
    numbers = np.asarray(labels)
    if not numbers.size:
        return
    low, high, last = int(numbers.min()), int(numbers.max()), classes - 1
    if low < 0 or high > last:
        raise LightsaeError(
            f"{where} has {low} to {high}, expected 0 to {last}; data.labels false takes none"
        )
