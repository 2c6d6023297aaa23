"""Moments of activations and of what a reconstruction leaves, added up in float64."""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError


class DataMoments:
    """Rows, their mean and covariance.

    Measured from the first row, so that a mean far larger than the spread costs no digits.

    Attributes:
        rows: How many there were.

    Example:
        >>> moments = DataMoments()
        >>> moments.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        >>> moments.covariance()
        tensor([[1., 0.],
                [0., 0.]], dtype=torch.float64)
        >>> moments.total()
        2.0
    """

    def __init__(self) -> None:
        self.rows = 0
        self._origin = self._sum = self._products = torch.zeros(())

    def update(self, x: Tensor) -> None:
        """Add a batch [B, d_in].

        Raises:
            LightsaeError: If a value is not finite.
        """
        wide = x.double()
        if len(wide) == 0:
            return
        if self.rows == 0:
            self._origin = wide[0].clone()
        moved = wide - self._origin
        total = moved.sum(dim=0)
        if not total.isfinite().all():
            raise LightsaeError(f"activations after row {self.rows} have NaN or infinite values")
        self.rows += len(wide)
        self._sum = self._sum.to(total) + total
        self._products = self._products.to(total) + moved.T @ moved

    def covariance(self) -> Tensor:
        """Covariance with divisor rows, [d_in, d_in] float64."""
        mean = self._sum / max(self.rows, 1)
        return self._products / max(self.rows, 1) - torch.outer(mean, mean)

    def total(self) -> float:
        """Sum over rows of ||x - mean||^2."""
        if self.rows == 0:
            return 0.0
        return float(self._products.trace() - self._sum.square().sum() / self.rows)


class ResidualMoments:
    """Sums of residuals and of their squares."""

    def __init__(self) -> None:
        self._sum = self._square = torch.zeros(())

    def update(self, residual: Tensor) -> None:
        """Add the residual of a batch [B, d_in]."""
        wide = residual.double()
        self._sum = self._sum.to(wide) + wide.sum(dim=0)
        self._square = self._square.to(wide) + wide.square().sum()

    def moved(self, added: Tensor, square: float) -> "ResidualMoments":
        """Those of residuals to which something was added.

        Args:
            added: Sum of that over the rows, [d_in].
            square: By how much it changes the sum of squares.
        """
        other = ResidualMoments()
        other._sum, other._square = self._sum + added, self._square + square
        return other

    def explained(self, data: DataMoments) -> tuple[float, float]:
        """R2, and R2 with the best constant added; NaN where the data do not vary."""
        total, rows = data.total(), max(data.rows, 1)
        if not total > 0:
            return float("nan"), float("nan")
        left = float(self._square)
        spread = left - float(self._sum.square().sum()) / rows
        return 1 - left / total, 1 - spread / total
