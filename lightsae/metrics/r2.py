"""Explained variance R2, merged exactly over batches and ranks."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.metrics.metric_base import ExactMetric

# Packed moments, float64: [rows, residual sum of squares, total sum of squares, mean (d_in)].
_SCALARS = 3

# Numbers per block on a CPU: their float64 copies stay in cache.
_BLOCK = 2**15

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _by_name(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """Refuse x_hat and x by position: in the other order R2 would be wrong without a word."""
    positional = len(inspect.signature(call).parameters) - 2

    @wraps(call)
    def named(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if len(args) > positional:
            raise LightsaeError(
                f"{call.__qualname__} takes x_hat and x by name, as x_hat=..., x=...: in the other "
                "order R2 would be wrong without a word"
            )
        return call(*args, **kwargs)

    return named


def _block_moments(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the packed moments of rows [rows, d_in]."""
    x, x_hat = x.double(), x_hat.double()
    # Measured from the first row, constant data have a total of exactly zero.
    shift = x[:1].sum(0)
    centred = x - shift
    offset = centred.sum(0) / max(len(x), 1)
    residual = (x - x_hat).square().sum()
    total = (centred - offset).square().sum()
    rows = torch.full_like(residual, len(x))
    return torch.cat([torch.stack([rows, residual, total]), shift + offset])


def _r2_update(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the packed moments of one batch."""
    require_tensors(x_hat=x_hat, x=x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise LightsaeError(f"x has shape {list(x.shape)}, expected [..., d_in]")
    if x_hat.shape != x.shape:
        raise LightsaeError(f"x_hat has shape {list(x_hat.shape)}, expected x's {list(x.shape)}")
    d_in = x.shape[-1]
    x, x_hat = x.detach().reshape(-1, d_in), x_hat.detach().reshape(-1, d_in)
    if not x.is_cpu:
        return _block_moments(x_hat, x)
    rows = max(1, _BLOCK // d_in)
    blocks = zip(x_hat.split(rows), x.split(rows), strict=True)
    return _r2_merge(torch.stack([_block_moments(*block) for block in blocks]))


def _r2_merge(moments: Tensor) -> Tensor:
    """Merge packed moments [parts, 3 + d_in] (Chan et al. 1983)."""
    rows, residual, total = moments[:, :_SCALARS].unbind(1)
    means = moments[:, _SCALARS:]
    reference = means.index_select(0, rows.argmax().reshape(1))
    weights = (rows / rows.sum().clamp(min=1)).unsqueeze(1)
    mean = reference + (weights * (means - reference)).sum(0, keepdim=True)
    between = (rows * (means - mean).square().sum(1)).sum()
    scalars = torch.stack([rows.sum(), residual.sum(), total.sum() + between])
    return torch.cat([scalars, mean.squeeze(0)])


def _r2_compute(moments: Tensor) -> Tensor:
    """Return R2 from packed moments; NaN where the total is zero."""
    _, residual, total = moments[:_SCALARS]
    return torch.where(total > 0, 1 - residual / total, torch.nan)


@_by_name
def r2(*, x_hat: Tensor, x: Tensor) -> Tensor:
    """Share of the variance of `x` that `x_hat` explains.

    `1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2`, with the mean taken per dimension. All sums
    are float64, so that a mean far larger than the standard deviation costs no digits. Both are
    given by name.

    Args:
        x_hat: Reconstructions [..., d_in], any float dtype.
        x: Inputs [..., d_in].

    Returns:
        Float64 scalar, at most 1; NaN when `x` does not vary (one row, or constant data), because
        there is nothing to explain.

    Raises:
        LightsaeError: If the shapes differ, or they are given by position.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> r2(x_hat=x + 0.5, x=x)
        tensor(0.9062, dtype=torch.float64)
    """
    return _r2_compute(_r2_update(x_hat, x))


class R2(ExactMetric):
    """Share of the variance of x that x_hat explains, over everything seen.

    The state is the float64 count, residual, total and mean; parts are merged with Chan's formula,
    so neither the split into batches nor the number of processes changes the result, and a mean far
    larger than the standard deviation costs no digits. See `r2` for the definition.

    Args:
        d_in: Width of the inputs.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> metric = R2(d_in=2)
        >>> for row in x:
        ...     metric.update(x_hat=row[None] + 0.5, x=row[None])
        >>> metric.compute()
        tensor(0.9062, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    moments: Tensor

    def __init__(self, d_in: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_in = size("d_in", d_in)
        empty = torch.zeros(_SCALARS + self.d_in, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=_r2_merge)

    @_by_name
    def update(self, *, x_hat: Tensor, x: Tensor) -> None:
        """Add a batch, both given by name.

        Args:
            x_hat: Reconstructions [..., d_in].
            x: Inputs [..., d_in].

        Raises:
            LightsaeError: If the shapes differ, the width is not `d_in`, or they are given by
                position.
        """
        moments = _r2_update(x_hat, x)
        if x.shape[-1] != self.d_in:
            raise LightsaeError(f"x has width {x.shape[-1]}, expected d_in = {self.d_in}")
        self.moments = _r2_merge(torch.stack([self.moments, moments]))

    def compute(self) -> Tensor:
        """Return R2 as a float64 scalar; NaN when nothing seen so far varies."""
        return _r2_compute(self.moments)
