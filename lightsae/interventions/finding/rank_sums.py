"""Ranks of each latent's activations among the rows, of a sparse code, and their p-values."""

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.extras import require

if TYPE_CHECKING:
    from scipy.sparse import csc_array

_TERMS_AT_ONCE = 1 << 20
# So far from its mean the number of firing rows has no probability that float64 could hold.
_DEVIATIONS, _LEAST = 12, 40


class RankSums(NamedTuple):
    """Ranks from 1, equal values sharing their mean; rows where a latent does not fire are one tie.

    Attributes:
        rows: Number of rows.
        ones: Number of rows in the set.
        total: Sum of the ranks of the set, [d] float64.
        firing: Rows where the latent fires, [d] int64.
        firing_ones: Those of the set among them, [d] int64.
        mean: Mean rank of the firing rows, [d] float64; 0 where there is none.
        variance: Their variance about it, divided by their number, [d] float64.
        silent: Rank of the rows where the latent does not fire, [d] float64.
    """

    rows: int
    ones: int
    total: Array
    firing: Array
    firing_ones: Array
    mean: Array
    variance: Array
    silent: Array

    def auroc(self) -> Array:
        """Share of pairs in which the row of the set has more, ties counting half, [d]."""
        above: Array = self.total - self.ones * (self.ones + 1) / 2
        return above / (self.ones * (self.rows - self.ones))


def rank_sums(codes: "csc_array", ones: Array) -> RankSums:
    """Rank every latent's activations, in time that grows with those that are not zero.

    Args:
        codes: scipy CSC array [rows, d] without stored zeros.
        ones: Which rows are the set, bool [rows].

    Example:
        >>> from scipy.sparse import csc_array
        >>> found = rank_sums(csc_array([[0.0], [0.0], [3.0], [2.0]]), np.array([0, 0, 1, 1]) == 1)
        >>> float(found.total[0]), float(found.silent[0]), float(found.auroc()[0])
        (7.0, 1.5, 1.0)
    """
    rows, d = codes.shape
    column = np.repeat(np.arange(d), np.diff(codes.indptr))
    order = np.lexsort((codes.data, column))
    values, in_set = codes.data[order], ones[codes.indices[order]]

    def sums(weights: Array) -> Array:
        return np.bincount(column, weights=weights, minlength=d)

    firing = np.diff(codes.indptr).astype(np.int64)
    zeros = rows - firing
    rank = _ranks_within(column, values, codes.indptr) + np.where(values > 0, zeros[column], 0)
    silent = sums(values < 0) + (zeros + 1) / 2
    firing_ones = sums(in_set).astype(np.int64)
    mean = sums(rank) / np.maximum(firing, 1)
    variance = sums((rank - mean[column]) ** 2) / np.maximum(firing, 1)
    size = int(ones.sum())
    total = sums(rank * in_set) + (size - firing_ones) * silent
    return RankSums(rows, size, total, firing, firing_ones, mean, variance, silent)


def _ranks_within(column: Array, values: Array, starts: Array) -> Array:
    """Ranks from 1 within each column of sorted values, equal ones sharing their mean."""
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (column[1:] != column[:-1])
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(values)))
    place = first - starts[column[first]]
    shared: Array = (place + (size + 1) / 2)[np.cumsum(new) - 1]
    return shared


def p_values(ranks: RankSums) -> Array:
    """Two-sided p-values of the Mann-Whitney test, [d] float64.

    Ours: the null distribution of the rank sum is a mixture over how many of the firing rows are in
    the set, which is hypergeometric and exact; within each number it is normal with the variance of
    the ranks, ties included, and a correction for continuity. A latent that fires everywhere gets
    the usual asymptotic p-value. One that fires on few rows gets one that holds for it: there the
    usual one is too small by orders of magnitude, and false discoveries would be rare latents.

    Args:
        ranks: Of the rows.

    Example:
        >>> from scipy.sparse import csc_array
        >>> ones = np.arange(1000) < 10
        >>> fires_once = csc_array(np.eye(1000)[:, :1])
        >>> round(float(p_values(rank_sums(fires_once, ones))[0]), 6)  # 10 of 1,000 rows
        0.01
    """
    least = np.maximum(0, ranks.firing + ranks.ones - ranks.rows)
    most = np.minimum(ranks.firing, ranks.ones)
    share = ranks.firing / ranks.rows
    expected = share * ranks.ones
    reach = _LEAST + _DEVIATIONS * np.sqrt(expected * (1 - share))
    near, far = (np.rint(expected + side * reach).astype(np.int64) for side in (-1, 1))
    low = np.maximum(least, np.minimum(near, ranks.firing_ones))
    high = np.minimum(most, np.maximum(far, ranks.firing_ones))
    width = high - low + 1
    part = np.cumsum(width) // _TERMS_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(part)) + 1), len(width)]
    found = np.zeros(len(width))
    for start, stop in pairwise(bounds):
        here = slice(start, stop)
        latent = np.repeat(np.arange(start, stop), width[here])
        begins = np.cumsum(width[here]) - width[here]
        number = np.arange(len(latent)) - np.repeat(
            begins - low[here].astype(np.int64), width[here]
        )
        terms = _terms(ranks, latent, number)
        found[here] = np.bincount(latent - start, weights=terms, minlength=stop - start)
    return np.minimum(found, 1)


def _terms(ranks: RankSums, latent: Array, number: Array) -> Array:
    """Probability that so many firing rows are in the set and the rank sum is as far off."""
    ndtr = require("scipy.special", extra="evaluation").ndtr
    firing, silent = ranks.firing[latent], ranks.silent[latent]
    middle = ranks.ones * (ranks.rows + 1) / 2
    off = np.abs(ranks.total - middle)[latent] - 0.5
    shift = number * ranks.mean[latent] + (ranks.ones - number) * silent - middle
    spread = number * (firing - number) / np.maximum(firing - 1, 1) * ranks.variance[latent]
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = ((shift - off) / np.sqrt(spread), (-shift - off) / np.sqrt(spread))
    # Without spread the rank sum is known; its own rounding must not decide.
    slack = 1e-9 * middle
    tails = np.where(
        spread > 0,
        ndtr(above) + ndtr(below),
        (shift >= off - slack).astype(float) + (-shift >= off - slack),
    )
    found: Array = _hypergeometric(ranks.rows, firing, ranks.ones, number) * np.minimum(tails, 1)
    return found


def _hypergeometric(rows: int, firing: Array, ones: int, number: Array) -> Array:
    """Probability that `number` of the firing rows are in a random set, by a table of factorials.

    scipy.stats.hypergeom takes a hundred times as long, most of the time of a contrast.
    """
    log_factorial = require("scipy.special", extra="evaluation").gammaln(np.arange(rows + 1) + 1.0)

    def log_choose(n: Array | int, k: Array | int) -> Array:
        found: Array = log_factorial[n] - log_factorial[k] - log_factorial[np.subtract(n, k)]
        return found

    ways = log_choose(firing, number) + log_choose(rows - firing, ones - number)
    probability: Array = np.exp(ways - log_choose(rows, ones))
    return probability
