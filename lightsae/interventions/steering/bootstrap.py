"""Percentile intervals of the bootstrap over samples, paired between points."""

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.interventions.steering.result import Estimate
from lightsae.interventions.steering.task import Measured, Split

_LEVEL = (0.025, 0.975)
_AT_ONCE = 64


class Bootstrap:
    """Resamples of the samples of a split, the same ones for every point.

    Args:
        split: The split.
        resamples: How many.
        seed: Of the draws.

    Example:
        >>> import torch
        >>> ones = torch.ones(100)
        >>> before, after = Measured(ones * 0.5, ones), Measured(ones * 0.25, ones)
        >>> found = Bootstrap("test", 100, 0).estimate(after, before)
        >>> found.change, found.change_low, found.change_high
        (-0.25, -0.25, -0.25)
    """

    def __init__(self, split: Split, resamples: int, seed: int) -> None:
        self._split, self._resamples, self._seed = split, resamples, seed
        self._draws: dict[int, Array] = {}
        self._kept: dict[int, tuple[Measured, Array]] = {}

    def estimate(self, measured: Measured, baseline: Measured) -> Estimate:
        """A metric, its change against the baseline, and their intervals.

        Args:
            measured: Of a point.
            baseline: Of the same samples without steering.
        """
        low, high = np.nanquantile(self._values(measured), _LEVEL)
        return Estimate(
            measured.value, float(low), float(high), *self.difference(measured, baseline)
        )

    def difference(self, one: Measured, other: Measured) -> tuple[float, float, float]:
        """One less the other on the same resamples: the difference and its interval."""
        low, high = np.nanquantile(self._values(one) - self._values(other), _LEVEL)
        return one.value - other.value, float(low), float(high)

    def _values(self, measured: Measured) -> Array:
        """The metric on every resample, computed once; NaN where all counts of one are 0."""
        kept = self._kept.get(id(measured))
        if kept is None:
            kept = self._kept[id(measured)] = measured, self._resampled(measured)
        return kept[1]

    def _resampled(self, measured: Measured) -> Array:
        amounts, counts = (each.double().numpy() for each in measured)
        draws = self._draws_of(len(amounts))
        found = np.empty(len(draws))
        for start in range(0, len(draws), _AT_ONCE):
            part = draws[start : start + _AT_ONCE]
            with np.errstate(invalid="ignore"):
                found[start : start + _AT_ONCE] = amounts[part].sum(1) / counts[part].sum(1)
        return found

    def _draws_of(self, n: int) -> Array:
        if n not in self._draws:
            key = [self._seed, ("choice", "test").index(self._split), n]
            generator = np.random.default_rng(key)
            self._draws[n] = generator.integers(n, size=(self._resamples, n))
        return self._draws[n]
