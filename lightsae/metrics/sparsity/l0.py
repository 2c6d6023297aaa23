"""L0: how many latents are in use per row."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import Code, require_tensors
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae.sparse_code import SparseCode


def _l0_update(values: Code) -> tuple[Tensor, int]:
    """Return the number of non-zero entries and of rows."""
    values = values.values if isinstance(values, SparseCode) else values
    require_tensors(values=values)
    return values.detach().count_nonzero(), values.shape[:-1].numel()


def _l0_compute(nonzero: Tensor, rows: Tensor) -> Tensor:
    """Return the mean count per row; NaN without rows."""
    return nonzero.double() / rows


def l0(values: Code) -> Tensor:
    """Mean number of non-zero latents per row.

    Args:
        values: A `SparseCode`, activations [..., k] of sparse codes, or [..., d_sae] of dense ones.

    Returns:
        Float64 scalar; NaN without rows.

    Example:
        >>> l0(torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.0, 0.0]]))
        tensor(1.5000, dtype=torch.float64)
    """
    nonzero, rows = _l0_update(values)
    return _l0_compute(nonzero, nonzero.new_tensor(rows))


class L0(ExactMetric):
    """Mean number of non-zero latents per row, over everything seen.

    Zero fill-ins (a row with fewer positive pre-activations than k) do not count.

    Args:
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = L0()
        >>> metric.update(torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.0, 0.0]]))
        >>> metric.compute()
        tensor(1.5000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    nonzero: Tensor
    rows: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("nonzero", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Code) -> None:
        """Add a batch.

        Args:
            values: A `SparseCode`, activations [..., k] of sparse codes, or [..., d_sae] of dense
                ones.
        """
        nonzero, rows = _l0_update(values)
        self.nonzero = self.nonzero + nonzero
        self.rows = self.rows + rows

    def compute(self) -> Tensor:
        """Return the mean count per row as a float64 scalar."""
        return _l0_compute(self.nonzero, self.rows)
