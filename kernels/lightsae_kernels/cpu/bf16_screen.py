"""Exact Top-k of a float32 encoder product, screened by one in bfloat16 that takes half the time.

    z_ij = x_i . w_j + b_j           y_ij = the same of operands rounded to bfloat16, rounded to it
    |z_ij - y_ij| <= m_i + u |y_ij|  u = 2^-8
    m_i = |x_i - x'_i| max_j |w_j| + |x'_i| max_j |w_j - w'_j| + max_j |b_j - b'_j|

by Cauchy-Schwarz, where ' is what rounding leaves; the float32 sums of either product add no more
than (d_in + 1) 2^-23 (|x_i| max_j |w_j| + max_j |b_j|). The columns with the largest y are
candidates, and are computed once more in float32. If no other y exceeds a bound t_i, no other z
exceeds (1 + u) t_i + m_i: where k candidates do, they are the Top-k. Other rows list more
candidates, and at last take the whole float32 product. With NaN or inf in x or W the margin is
neither small nor a number.

Shapes: x [B, D], W [N, D], b [N]; C candidates of a row.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.row_sort import sort_rows_
from lightsae_kernels.cpu.select import select_topk, shortlist_topk
from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.types import Encoder

_ROUNDING = 2.0**-8
_SUMMATION = 2.0**-23
_LEAST_NORM = 2.0**-40
# Below this many products, or latents for each candidate, screening costs what it saves.
_LEAST_PRODUCTS = 1 << 28
_LEAST_LATENTS = 16
# How many times as many candidates a doubtful row gets.
_MORE = 4
_BLOCK_BYTES = 12 << 20
# Rows of a weight that stay in cache while they are looked at.
_ROWS = 512


class Screen(NamedTuple):
    """Operands in bfloat16, and what rounding them can do to a product.

    Attributes:
        W: [N, D] bfloat16.
        b: [N] bfloat16.
        norm: Largest norm of a row of the float32 weight.
        rounded: Largest norm of what rounding took from a row of it.
        bias: Largest absolute value of the float32 bias.
        rounded_bias: Largest that rounding took from an element of it.
    """

    W: Tensor
    b: Tensor
    norm: Tensor
    rounded: Tensor
    bias: Tensor
    rounded_bias: Tensor

    @classmethod
    def of(cls, encoder: Encoder) -> "Screen":
        """Round a float32 encoder, or take the copy that it has."""
        W, b, _ = encoder
        narrow = encoder.weight(torch.bfloat16)
        norms = W.new_zeros(2)
        for rows, rounded in zip(W.split(_ROWS), narrow.split(_ROWS), strict=True):
            left = rounded.float().sub_(rows)
            largest = [torch.linalg.vector_norm(part, dim=1).amax() for part in (rows, left)]
            torch.maximum(norms, torch.stack(largest), out=norms)
        b_narrow = b.to(torch.bfloat16)
        of_bias = b.abs().amax(), (b - b_narrow).abs().amax()
        return cls(narrow, b_narrow, norms[0], norms[1], *of_bias)

    def raised(self, x: Tensor, bias: Tensor) -> Tensor | None:
        """A bias with which every product that is positive with another one is positive, too.

        Args:
            x: Rows, [B, D].
            bias: Of the product in question, float32 [N].

        Returns:
            [N] bfloat16; None where the margin is no number, and nothing can be said.
        """
        largest = bias.abs().amax()
        margin = self._replace(bias=largest, rounded_bias=torch.zeros(())).margin(x).amax()
        # What is added is rounded itself, and summed.
        raised = 1.02 * (margin + _ROUNDING * largest)
        return (bias + raised).to(torch.bfloat16) if bool(raised.isfinite()) else None

    def margin(self, x: Tensor) -> Tensor:
        """How far products of rows of x [B, D], once rounded, can be off; [B].

        Infinite where squares underflow, so that a norm says nothing.
        """
        size = torch.linalg.vector_norm(x, dim=1)
        left = torch.linalg.vector_norm(x - x.to(torch.bfloat16), dim=1)
        # Twice what the sums add: the comparison and these norms are rounded too.
        summed = 2 * (x.shape[1] + 1) * _SUMMATION * (size * self.norm + self.bias)
        # The norm of what was rounded is at most that much longer.
        of_weight = (1 + _ROUNDING) * size * self.rounded
        margin: Tensor = left * self.norm + of_weight + self.rounded_bias + summed
        return margin.masked_fill_((size < _LEAST_NORM) | (self.norm < _LEAST_NORM), torch.inf)


def pays(x: Tensor, W: Tensor, plan: EncodePlan) -> bool:
    """Whether screening is faster: the CPU multiplies bfloat16, and the product is large."""
    enough = len(W) >= _LEAST_LATENTS * candidates(plan.k)
    return enough and screening_pays(x, W, plan.dtype)


def screening_pays(x: Tensor, W: Tensor, dtype: torch.dtype) -> bool:
    """Whether a float32 product is so large that one in bfloat16 before it saves time."""
    large = len(x) * W.numel() >= _LEAST_PRODUCTS
    return large and x.dtype == dtype == torch.float32 and multiplies_bfloat16()


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def candidates(k: int) -> int:
    """How many columns of a row are computed in float32."""
    return 2 * max(k, 16)


def screened_topk(x: Tensor, encoder: Encoder, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the k largest of ReLU(x W^T + b) in each row.

    Args:
        x: Centred inputs, [B, D] float32.
        encoder: W [N, D] and b [N], float32.
        k: How many to keep.

    Returns:
        Float32 values [B, k], descending, and int64 indices [B, k], ties to the lowest index.
    """
    B, N = len(x), len(encoder.W)
    screen = Screen.of(encoder)
    values, indices = x.new_empty(B, k), torch.empty(B, k, dtype=torch.int64)
    rows = max(1, _BLOCK_BYTES // (2 * N))
    with workspace.borrowed((min(rows, B), N), torch.bfloat16) as buffer:
        for start in range(0, B, rows):
            block = slice(start, min(start + rows, B))
            here = x[block]
            y = torch.addmm(
                screen.b, here.to(torch.bfloat16), screen.W.t(), out=buffer[: len(here)]
            )
            values[block], indices[block] = _from_candidates(here, y, encoder, screen, k)
    return values, indices


def _from_candidates(
    x: Tensor, y: Tensor, encoder: Encoder, screen: Screen, k: int
) -> tuple[Tensor, Tensor]:
    """Top-k of a block by way of its candidates; of doubtful rows by more, then by all latents."""
    count = candidates(k)
    values, indices, doubtful = _best_of(count, x, y, encoder, screen, k)
    if len(doubtful) and count * _MORE <= y.shape[1]:
        more = x[doubtful], y[doubtful]
        values[doubtful], indices[doubtful], left = _best_of(
            count * _MORE, *more, encoder, screen, k
        )
        doubtful = doubtful[left]
    if len(doubtful):
        z = torch.addmm(encoder.b, x[doubtful], encoder.W.t())
        values[doubtful], indices[doubtful] = select_topk(z, k)
    return values, indices


def _best_of(
    count: int, x: Tensor, y: Tensor, encoder: Encoder, screen: Screen, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Top-k of the candidates with the largest y, and the rows in which others may belong to it."""
    listed, bound = shortlist_topk(y, count)
    z = _products(x, encoder.W, listed).add_(encoder.b[listed])
    values, indices = _sorted(z, listed, k)
    certain = bound * (1 + _ROUNDING) + screen.margin(x) < values[:, -1]
    return values, indices, certain.logical_not().nonzero().squeeze(1)


def products_of_pairs(x: Tensor, W: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Products of rows of x with rows of W, pair by pair, [P]; rows ascending."""
    counts = torch.bincount(rows, minlength=len(x))
    # The gradient of the weights of a bag is these products; torch has no other name for it.
    found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x, W, columns, counts.cumsum(0) - counts, rows, 0
    )
    return found


def _products(x: Tensor, W: Tensor, listed: Tensor) -> Tensor:
    """Products of each row of x with the listed rows of W, [B, C]."""
    B, C = listed.shape
    rows = torch.arange(B)
    # The gradient of the weights of a bag is these products; torch has no other name for them.
    found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x, W, listed.reshape(-1), rows * C, rows.repeat_interleave(C), 0
    )
    return found.view(B, C)


def _sorted(z: Tensor, listed: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of ReLU(z) [B, C] and their columns."""
    keys = torch.sub(listed, z.view(torch.int32).clamp(min=0), alpha=1 << 32)
    sort_rows_(keys)
    keys = keys[:, :k]
    bits = keys.bitwise_right_shift(32).neg_().to(torch.int32)
    return bits.view(torch.float32), keys.bitwise_and(0xFFFFFFFF)
