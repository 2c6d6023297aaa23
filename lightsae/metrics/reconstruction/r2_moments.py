"""The sums behind R2, packed into one tensor and merged exactly."""

import torch
from torch import Tensor

from lightsae.metrics.reconstruction.reconstruction_inputs import row_blocks, wide_copy

# Packed moments, float64: [rows, residual sum of squares, total sum of squares, mean (d_in)].
SCALARS = 3


def _block_moments(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the packed moments of rows [rows, d_in]."""
    x, missed = wide_copy(x), wide_copy(x_hat)
    missed.sub_(x)
    # Measured from the first row, constant data have a total of exactly zero.
    shift = x[:1].sum(0)
    offset = x.sub_(shift).sum(0) / max(len(x), 1)
    x.sub_(offset)
    residual, total = (torch.dot(each.view(-1), each.view(-1)) for each in (missed, x))
    rows = torch.full_like(residual, len(x))
    return torch.cat([torch.stack([rows, residual, total]), shift + offset])


def moments(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the packed moments of a batch [rows, d_in]."""
    blocks = zip(row_blocks(x_hat), row_blocks(x), strict=True)
    return merge_moments(torch.stack([_block_moments(*block) for block in blocks]))


def merge_moments(parts: Tensor) -> Tensor:
    """Merge packed moments [parts, 3 + d_in] (Chan et al. 1983)."""
    rows, residual, total = parts[:, :SCALARS].unbind(1)
    means = parts[:, SCALARS:]
    reference = means.index_select(0, rows.argmax().reshape(1))
    weights = (rows / rows.sum().clamp(min=1)).unsqueeze(1)
    mean = reference + (weights * (means - reference)).sum(0, keepdim=True)
    between = (rows * (means - mean).square().sum(1)).sum()
    scalars = torch.stack([rows.sum(), residual.sum(), total.sum() + between])
    return torch.cat([scalars, mean.squeeze(0)])


def r2_from_moments(merged: Tensor) -> Tensor:
    """Return R2 from packed moments; NaN where the total is zero."""
    _, residual, total = merged[:SCALARS]
    return torch.where(total > 0, 1 - residual / total, torch.nan)
