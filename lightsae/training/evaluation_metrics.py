"""What validation and test accumulate."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightsae.metrics import L0, R2, DeadLatents


class RowMean(Metric):
    """Mean over rows of what batches give as their own means, in float64.

    torchmetrics' own rounds values to the dtype that it was last moved or cast to, and Lightning's
    mean over ranks forgets that one may have a row more.

    Example:
        >>> mean = RowMean()
        >>> mean.update(torch.tensor(1.0), 3)
        >>> mean.update(torch.tensor(5.0), 1)
        >>> mean.compute()
        tensor(2., dtype=torch.float64)
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, mean: Tensor, rows: int) -> None:
        """Add the mean over a number of rows."""
        # A cast of the module to a narrow dtype also casts the sum while it is 0.
        self.total = self.total.double() + mean.double() * rows
        self.rows = self.rows + rows

    def compute(self) -> Tensor:
        """The mean over all rows, a float64 scalar."""
        return self.total.double() / self.rows


class EvaluationMetrics(nn.Module):
    """R2 of [B, d_out], L0, dead latents and the parts of the loss over a split."""

    def __init__(self, d_out: int, d_sae: int) -> None:
        super().__init__()
        self.r2 = R2(d_out)
        self.l0 = L0()
        self.dead = DeadLatents(d_sae)
        self.loss = RowMean()
        self.reconstruction = RowMean()
        self.penalty = RowMean()
