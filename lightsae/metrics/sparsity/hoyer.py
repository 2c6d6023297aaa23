"""Hoyer sparsity: how concentrated the activations of a row are."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import Code, size, unpacked
from lightsae.metrics.metric_base import ExactMetric


def _hoyer_update(values: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """Return the sum over rows (float64) and the number of rows that have a value (int64)."""
    values = values.double().abs()
    # By the largest of a row, so that squares of tiny activations do not vanish.
    values = values / values.amax(-1, keepdim=True) if values.shape[-1] else values
    l1, l2 = values.sum(-1), values.square().sum(-1).sqrt()
    root = values.new_tensor(d_sae).sqrt()
    sparsity = (root - l1 / l2) / (root - 1)
    usable = l2 > 0
    return sparsity.where(usable, 0).sum(), usable.sum()


def _hoyer_compute(total: Tensor, rows: Tensor) -> Tensor:
    """Return the mean; NaN without rows."""
    return total / rows


def hoyer(values: Code, indices: Tensor | None = None, d_sae: int | None = None) -> Tensor:
    """Mean Hoyer sparsity of rows.

    `(sqrt(n) - ||a||_1 / ||a||_2) / (sqrt(n) - 1)` with n = d_sae, of each row (Hoyer 2004, "Non-
    negative matrix factorization with sparseness constraints"; arXiv 0811.4706): 1 where one latent
    is active, 0 where all are equally. Rows in which nothing fires have no value and are left out.

    Args:
        values: A `SparseCode`, or activations [..., k].
        indices: Latents [..., k], integers, none twice in a row; a `SparseCode` has them.
        d_sae: Number of latents; a `SparseCode` tells it.

    Returns:
        Float64 scalar; NaN without a row that fires, or where d_sae is 1.

    Raises:
        LightsaeError: If the shapes differ or a latent is not in the dictionary.

    Example:
        >>> values = torch.tensor([[2.0, 0.0], [3.0, 3.0], [0.0, 0.0]])
        >>> hoyer(values, torch.tensor([[3, 0], [1, 2], [0, 1]]), d_sae=4)
        tensor(0.7929, dtype=torch.float64)
    """
    values, _, d_sae = unpacked(values, indices, d_sae)
    return _hoyer_compute(*_hoyer_update(values, d_sae))


class Hoyer(ExactMetric):
    """Mean Hoyer sparsity of rows, over everything seen; see `hoyer`.

    Args:
        d_sae: Number of latents.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = Hoyer(d_sae=4)
        >>> metric.update(torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 0]]))
        >>> metric.update(torch.tensor([[3.0, 3.0]]), torch.tensor([[1, 2]]))
        >>> metric.compute()
        tensor(0.7929, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    total: Tensor
    rows: Tensor

    def __init__(self, d_sae: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae = size("d_sae", d_sae)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Code, indices: Tensor | None = None) -> None:
        """Add a batch of codes.

        Args:
            values: A `SparseCode`, or activations [..., k].
            indices: Latents [..., k], integers; a `SparseCode` has them.

        Raises:
            LightsaeError: If the shapes differ or a latent is not in the dictionary.
        """
        values, _, d_sae = unpacked(values, indices, self.d_sae)
        total, rows = _hoyer_update(values, d_sae)
        self.total = self.total + total
        self.rows = self.rows + rows

    def compute(self) -> Tensor:
        """Return the mean as a float64 scalar."""
        return _hoyer_compute(self.total, self.rows)
