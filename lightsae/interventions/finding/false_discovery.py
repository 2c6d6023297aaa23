"""Control of the false-discovery rate."""

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.extras import require


def adjusted(p: Array, tested: Array) -> Array:
    """p-values adjusted over those that are tests, by Benjamini and Hochberg (1995).

    Args:
        p: p-values, in [0, 1] where they are tests, any shape.
        tested: Which are, bool, the same shape.

    Returns:
        q-values, 1 where there is no test, float64.

    Raises:
        MissingExtraError: If scipy is not installed.

    Example:
        >>> p = np.array([0.01, 0.5, 0.02, np.nan])
        >>> adjusted(p, ~np.isnan(p)).round(3).tolist()
        [0.03, 0.5, 0.03, 1.0]
    """
    q = np.ones(p.shape)
    if tested.any():
        stats = require("scipy.stats", extra="evaluation")
        q[tested] = stats.false_discovery_control(p[tested], method="bh")
    return q
