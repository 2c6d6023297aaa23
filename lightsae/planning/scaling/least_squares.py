"""Least squares of log losses from several starts."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from lightsae.extras import require
from lightsae.planning.scaling.groups import Groups
from lightsae.planning.scaling.laws import Array, Form

_EXPONENTS = (-0.05, -0.2, -0.5, -1.0, -2.0)
_LEAST_TERM = 1e-3


class Solution(NamedTuple):
    """Where a fit ended.

    Attributes:
        theta: Parameters, [p].
        residuals: Weighted, [groups].
        jacobian: Of the weighted predictions in an orthonormal basis of each term, [groups, p].
        starts: How many starts there were.
        agreed: How many of them ended within 0.1% of the least sum of squares.
    """

    theta: Array
    residuals: Array
    jacobian: Array
    starts: int
    agreed: int


class Problem:
    """A form and what it is fitted to, in a basis in which each term's columns are orthonormal.

    Args:
        form: The law.
        groups: At least as many as parameters.

    Attributes:
        full_rank: Whether the monomials of each term differ over these groups.
    """

    def __init__(self, form: Form, groups: Groups) -> None:
        self.form, self.groups = form, groups
        self.weights = np.sqrt(groups.seeds)
        factors = [np.linalg.qr(columns) for columns in form.columns(groups.logs)]
        self._bases = [basis for basis, _ in factors]
        self._triangles = [triangle for _, triangle in factors]
        self.full_rank = all(
            np.abs(np.diag(each)).min() > 1e-8 * np.abs(each).max() for each in self._triangles
        )

    def theta(self, inner: Array) -> Array:
        """Parameters of the law from those of the basis."""
        parts = self.form.split(inner)
        pairs = zip(self._triangles, parts, strict=True)
        return np.concatenate(
            [np.linalg.solve(each, part[..., None])[..., 0] for each, part in pairs], axis=-1
        )

    def log_terms(self, inner: Array) -> Array:
        """Logarithm of each term, [..., groups, terms]; inner may have leading axes."""
        parts = self.form.split(inner)
        return np.stack(
            [part @ basis.T for basis, part in zip(self._bases, parts, strict=True)], axis=-1
        )

    def log_loss(self, inner: Array) -> Array:
        """Logarithm of the loss, [..., groups]."""
        found: Array = np.logaddexp.reduce(self.log_terms(inner), axis=-1)
        return found

    def shares(self, inner: Array) -> Array:
        """What each term has of the loss, [..., groups, terms]."""
        terms = self.log_terms(inner)
        found: Array = np.exp(terms - np.logaddexp.reduce(terms, axis=-1)[..., None])
        return found

    def jacobian(self, inner: Array) -> Array:
        """Of the weighted log losses, [..., groups, p]."""
        shares = self.shares(inner)
        parts = [basis * shares[..., place, None] for place, basis in enumerate(self._bases)]
        found: Array = np.concatenate(parts, axis=-1) * self.weights[:, None]
        return found

    def minimum(self, start: Array, log_loss: Array) -> tuple[Array, float]:
        """Where Levenberg and Marquardt's method ends from a start, and half the sum of squares."""
        found = require("scipy.optimize", extra="evaluation").least_squares(
            lambda inner: self.weights * (self.log_loss(inner) - log_loss),
            start, jac=self.jacobian, method="lm", max_nfev=400,
        )  # fmt: skip
        return found.x, float(found.cost)

    def starts(self) -> Iterator[Array]:
        """Starts: for assumed exponents, the amplitudes of least squares at each k, none negative.

        A term that gets nothing somewhere starts at 0.1% of the least loss.
        """
        loss = np.exp(self.groups.log_loss)
        drivers = ["".join(m for _, m in term if len(m) == 1 and m != "k")
                   for term in self.form.terms]  # fmt: skip
        own = [_EXPONENTS if driver else (0.0,) for driver in drivers]
        for exponents in product(*own):
            shapes = [
                exponent * self.groups.logs[driver] if driver else np.zeros_like(loss)
                for driver, exponent in zip(drivers, exponents, strict=True)
            ]
            targets = self._amplitudes(shapes, loss)
            yield np.concatenate(
                [basis.T @ target for basis, target in zip(self._bases, targets, strict=True)]
            )

    def _amplitudes(self, shapes: list[Array], loss: Array) -> list[Array]:
        """Logarithm of each term at each group."""
        nnls = require("scipy.optimize", extra="evaluation").nnls
        powers = np.exp(np.stack([each - each.max() for each in shapes], axis=1))
        values = np.empty_like(powers)
        for k in self.groups.values("k"):
            here = self.groups.logs["k"] == k
            amplitudes, _ = nnls(powers[here] / loss[here, None], np.ones(int(here.sum())))
            least = _LEAST_TERM * loss[here].min()
            values[here] = np.maximum(amplitudes * powers[here], least)
        return list(np.log(values).T)

    def solve(self) -> tuple[Solution, Array]:
        """The best of all starts, and its parameters in the basis."""
        ends = [self.minimum(start, self.groups.log_loss) for start in self.starts()]
        inner, cost = min(ends, key=lambda end: end[1])
        agreed = sum(each <= cost * 1.001 + 1e-12 for _, each in ends)
        residuals = self.weights * (self.groups.log_loss - self.log_loss(inner))
        jacobian = self.jacobian(inner)
        return Solution(self.theta(inner), residuals, jacobian, len(ends), agreed), inner
