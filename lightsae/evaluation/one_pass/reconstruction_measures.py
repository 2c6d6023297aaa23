"""R2, uniform R2 and NMSE from one look at each row."""

import torch
from torch import Tensor

from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.reconstruction.reconstruction_inputs import (
    by_name,
    matching_rows,
    row_blocks,
    wide_copy,
)
from lightsae.metrics.reconstruction.row_sums import (
    dimension_moments,
    merge_dimension_moments,
    r2_uniform_from,
    sum_of_ratios,
)


class ReconstructionMeasures(ExactMetric):
    """What `R2`, `R2Uniform` and `NMSE` tell, whose sums are over the same float64 differences.

    Args:
        d_in: Width of the inputs.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> measures = ReconstructionMeasures(d_in=2)
        >>> measures.update(x_hat=x + 0.5, x=x)
        >>> measures.compute()["r2"]
        0.90625
    """

    full_state_update = False
    moments: Tensor
    ratios: Tensor
    rows_with_ratio: Tensor

    def __init__(self, d_in: int) -> None:
        super().__init__()
        empty = torch.zeros(4, d_in, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=merge_dimension_moments)
        self.add_state("ratios", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows_with_ratio", torch.tensor(0), dist_reduce_fx="sum")

    @by_name
    def update(self, *, x_hat: Tensor, x: Tensor) -> None:
        """Add a batch.

        Args:
            x_hat: Reconstructions [B, d_in].
            x: Inputs [B, d_in].
        """
        found = [self.moments]
        for part, rows in zip(*map(row_blocks, matching_rows(x_hat, x)), strict=True):
            wide, missed = wide_copy(rows), wide_copy(part)
            missed.sub_(wide).square_()
            ratios, with_ratio = sum_of_ratios(wide, missed)
            self.ratios = self.ratios + ratios
            self.rows_with_ratio = self.rows_with_ratio + with_ratio
            found.append(dimension_moments(wide, missed))
        self.moments = merge_dimension_moments(torch.stack(found))

    def compute(self) -> dict[str, float]:
        """The three by name."""
        _, residual, total, _ = self.moments.sum(1)
        r2 = torch.where(total > 0, 1 - residual / total, torch.nan)
        return {
            "r2": float(r2),
            "r2_uniform": float(r2_uniform_from(self.moments)),
            "nmse": float(self.ratios / self.rows_with_ratio),
        }
