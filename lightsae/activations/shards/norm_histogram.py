"""Histogram of row norms in bins of a sixteenth of an octave, kept in the manifest."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lightsae.activations.shards.dtypes import Array

PER_OCTAVE = 16
ZERO = "zero"
# Of the least positive float32, and behind the longest row that has less than 2^32 of the largest.
LEAST_BIN, MOST_BIN = -149 * PER_OCTAVE, (128 + 16) * PER_OCTAVE


def count_norms(rows: Array) -> Counter[str]:
    """Count rows by their norm.

    Args:
        rows: Float32 `[n, d_in]`, finite.

    Returns:
        For each bin that has rows their number. Bin b goes from 2^(b/16) to 2^((b+1)/16) and is
        named by b; rows of zeros are counted as "zero".

    Example:
        >>> count_norms(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 1.01]], np.float32))
        Counter({'0': 2, '16': 1, 'zero': 1})
    """
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bins = np.floor(PER_OCTAVE * np.log2(norms[norms > 0])).astype(np.int64)
    numbers, counts = np.unique(bins, return_counts=True)
    found = Counter(dict(zip(map(str, numbers.tolist()), counts.tolist(), strict=True)))
    if zeros := len(rows) - len(bins):
        found[ZERO] = zeros
    return found


def norm_quantiles(counts: dict[str, int], shares: Sequence[float]) -> list[float]:
    """Norms below which shares of the rows are, to within 2.2%.

    Args:
        counts: As `count_norms` gives them, of at least one row.
        shares: Each from 0 (the least) to 1 (the most).

    Returns:
        The geometric middles of the bins.

    Example:
        >>> [round(norm, 2) for norm in norm_quantiles({"zero": 1, "0": 8, "16": 1}, [0, 0.5, 1])]
        [0.0, 1.02, 2.04]
    """
    bins = sorted(
        (-math.inf if name == ZERO else int(name), count) for name, count in counts.items()
    )
    ends = np.cumsum([count for _, count in bins])
    places = np.searchsorted(ends, np.ceil(np.asarray(shares) * ends[-1]).clip(1))
    return [_middle(bins[place][0]) for place in places.tolist()]


def _middle(number: float) -> float:
    return 0.0 if math.isinf(number) else 2 ** ((number + 0.5) / PER_OCTAVE)
