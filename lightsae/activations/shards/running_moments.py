"""Mean and variance per dimension, merged over parts (Chan et al.)."""

from dataclasses import dataclass

import numpy as np

from lightsae.activations.shards.dtypes import Array


@dataclass(frozen=True)
class Moments:
    """Count, mean and summed squared deviation per dimension, in float64.

    Attributes:
        count: Number of rows.
        mean: `[d_in]`.
        m2: `[d_in]`, the sum over rows of (x - mean)^2.

    Example:
        >>> rows = np.array([[1.0], [2.0], [6.0]], np.float32)
        >>> merged = Moments.of(rows[:1]).merge(Moments.of(rows[1:]))
        >>> merged.mean, merged.m2
        (array([3.]), array([14.]))
    """

    count: int
    mean: Array
    m2: Array

    @classmethod
    def empty(cls, d_in: int) -> "Moments":
        """Moments of no rows."""
        return cls(0, np.zeros(d_in), np.zeros(d_in))

    @classmethod
    def of(cls, rows: Array) -> "Moments":
        """Moments of rows `[n, d_in]`."""
        exact = rows.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        return cls(len(rows), mean, np.einsum("ij,ij->j", exact, exact))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows together (Chan et al. 1979)."""
        if self.count == 0:
            return other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + np.square(delta) * (self.count * other.count / count)
        return Moments(count, mean, m2)

    def agrees(self, mean: list[float], scale: list[float]) -> bool:
        """Whether a mean and a scale are these, up to the order of sums.

        Example:
            >>> found = Moments(2, np.array([1.0]), np.array([8.0]))
            >>> found.agrees([1.0], [2.0]), found.agrees([1.5], [2.0])
            (True, False)
        """
        largest = max(float(np.abs(self.mean).max()), float(self.scale.max()))
        pairs = ((self.mean, mean), (self.scale, scale))
        return all(np.allclose(ours, given, rtol=0, atol=1e-9 * largest) for ours, given in pairs)

    @property
    def scale(self) -> Array:
        """Standard deviation per dimension `[d_in]` (of the rows themselves, not an estimate)."""
        scale: Array = np.sqrt(self.m2 / max(self.count, 1))
        return scale
