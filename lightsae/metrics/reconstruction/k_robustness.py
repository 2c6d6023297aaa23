"""k-robustness: how well inputs are reconstructed at another k than the one trained with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.reconstruction.r2_moments import SCALARS, merge_moments, moments
from lightsae.metrics.reconstruction.reconstruction_inputs import (
    by_name,
    matching_rows,
    row_blocks,
    width_of,
)


class KRobustnessCurve:
    """Quality of the reconstruction at each inference-time k.

    Attributes:
        k: Latents kept per row [points], int64, ascending.
        nmse: NMSE of each [points], float64.
        r2: R2 of each [points], float64.
    """

    def __init__(self, k: Tensor, nmse: Tensor, r2: Tensor) -> None:
        self.k = k
        self.nmse = nmse
        self.r2 = r2


def k_around(k: int, d_sae: int) -> tuple[int, ...]:
    """Inference-time k from a quarter of the training k to four times it, ascending.

    A quarter, a half, three quarters, one, one and a half, two, three and four times k, without
    what is below 1 or above d_sae.

    Args:
        k: The training k.
        d_sae: Number of latents.

    Example:
        >>> k_around(32, 8192)
        (8, 16, 24, 32, 48, 64, 96, 128)
        >>> k_around(2, 5)
        (1, 2, 3, 4)
    """
    quarters = (1, 2, 3, 4, 6, 8, 12, 16)
    return tuple(sorted({k * n // 4 for n in quarters if 1 <= k * n // 4 <= d_sae}))


@by_name
def k_robustness(*, x_hat: Tensor, x: Tensor, k: Sequence[int]) -> KRobustnessCurve:
    """NMSE and R2 for each inference-time k (arXiv 2606.27321).

    Codes at a smaller k are the leading places of those at a larger one, so one encoding with the
    largest k gives them all. See `nmse` and `r2` for the two definitions.

    Args:
        x_hat: Reconstructions with each k [points, ..., d_in].
        x: Inputs [..., d_in].
        k: Latents kept for each point, ascending.

    Raises:
        LightsaeError: If the shapes do not fit together, or they are given by position.

    Example:
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> k_robustness(x_hat=torch.stack([0.5 * x, x]), x=x, k=(1, 2)).nmse
        tensor([0.2500, 0.0000], dtype=torch.float64)
    """
    require_tensors(x_hat=x_hat, x=x)
    metric = KRobustness(width_of(x), k).to(x.device)
    metric.update(x_hat=x_hat, x=x)
    return metric.compute()


class KRobustness(ExactMetric):
    """NMSE and R2 for each inference-time k, over everything seen.

    See `k_robustness` for the definition.

    Args:
        d_in: Width of the inputs.
        k: Latents kept for each point, ascending, such as `k_around` gives.
        **kwargs: Passed to `torchmetrics.Metric`.

    Raises:
        LightsaeError: If k is empty, not ascending or below 1.

    Example:
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> metric = KRobustness(d_in=2, k=(1, 2))
        >>> for row in x:
        ...     metric.update(x_hat=torch.stack([0.5 * row, row]), x=row)
        >>> metric.compute().nmse
        tensor([0.2500, 0.0000], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    moments: Tensor
    residuals: Tensor
    ratios: Tensor
    rows_with_ratio: Tensor

    def __init__(self, d_in: int, k: Sequence[int], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_in = size("d_in", d_in)
        self.k = tuple(size("k", each) for each in k)
        if not self.k or list(self.k) != sorted(set(self.k)):
            raise LightsaeError(f"k = {list(k)}, expected at least one, ascending")
        points = torch.zeros(len(self.k), dtype=torch.float64)
        empty = torch.zeros(SCALARS + self.d_in, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=merge_moments)
        self.add_state("residuals", points, dist_reduce_fx="sum")
        self.add_state("ratios", points.clone(), dist_reduce_fx="sum")
        self.add_state("rows_with_ratio", torch.tensor(0), dist_reduce_fx="sum")

    @by_name
    def update(self, *, x_hat: Tensor, x: Tensor) -> None:
        """Add a batch, both given by name.

        Args:
            x_hat: Reconstructions with each k [points, ..., d_in].
            x: Inputs [..., d_in].

        Raises:
            LightsaeError: If the shapes do not fit together, or they are given by position.
        """
        require_tensors(x_hat=x_hat, x=x)
        if x_hat.shape != (len(self.k), *x.shape):
            raise LightsaeError(
                f"x_hat has shape {list(x_hat.shape)}, expected one x for each of "
                f"{len(self.k)} k: {[len(self.k), *x.shape]}"
            )
        first, rows = matching_rows(x_hat[0], x, self.d_in)
        self.moments = merge_moments(torch.stack([self.moments, moments(first, rows)]))
        x_hat = x_hat.detach().reshape(len(self.k), *rows.shape)
        for block, *points in zip(row_blocks(rows), *map(row_blocks, x_hat), strict=True):
            self._add_block(points, block.double())

    def _add_block(self, points: Sequence[Tensor], x: Tensor) -> None:
        """Add what each point misses of rows [rows, d_in]."""
        length = x.square().sum(1)
        usable = length > 0
        missed = torch.stack([(x - x_hat.double()).square().sum(1) for x_hat in points])
        self.residuals = self.residuals + missed.sum(1)
        self.ratios = self.ratios + (missed / length).where(usable, 0).sum(1)
        self.rows_with_ratio = self.rows_with_ratio + usable.sum()

    def compute(self) -> KRobustnessCurve:
        """Return both figures for each k."""
        total = self.moments[2]
        r2 = torch.where(total > 0, 1 - self.residuals / total, torch.nan)
        k = torch.tensor(self.k, device=total.device)
        return KRobustnessCurve(k, self.ratios / self.rows_with_ratio, r2)
