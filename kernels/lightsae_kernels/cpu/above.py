"""All activations above a bound: from a product, or screened by one in bfloat16.

The bound goes into the bias, so that what may be above it has a positive sign.

Shapes: x [B, D] centred, W_enc [N, D], P pairs of row and latent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.bf16_screen import Screen, products_of_pairs
from lightsae_kernels.cpu.used_places import UsedPlaces, marked
from lightsae_kernels.types import Encoder

_BLOCK_BYTES = 12 << 20


class Pairs(NamedTuple):
    """Activations of pairs of row and latent, in the order of rows, then of latents.

    Attributes:
        rows: [P] int64.
        latents: [P] int64.
        values: [P].
    """

    rows: Tensor
    latents: Tensor
    values: Tensor

    @classmethod
    def of(cls, values: Tensor, indices: Tensor, used: Tensor) -> "Pairs":
        """Those of a code [B, k] that are used."""
        places = UsedPlaces.of(used)
        return cls(places.rows, places.take(indices), places.take(values))

    @classmethod
    def joined(cls, parts: Sequence["Pairs"], dtype: torch.dtype) -> "Pairs":
        """Those of several blocks of rows, in order."""
        if not parts:
            nowhere = torch.zeros(0, dtype=torch.int64)
            return cls(nowhere, nowhere, torch.zeros(0, dtype=dtype))
        return cls(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def padded(self, B: int) -> tuple[Tensor, Tensor, Tensor]:
        """Values, indices and which places there are, [B, W]; see `reference.select_above`."""
        counts = torch.bincount(self.rows, minlength=B)
        W = max(1, int(counts.max())) if B else 1
        starts = counts.cumsum(0) - counts
        place = self.rows * W + torch.arange(len(self.rows)) - starts[self.rows]
        values = self.values.new_zeros(B * W).index_copy_(0, place, self.values)
        first = torch.zeros(B, dtype=torch.int64)
        some = counts > 0
        first[some] = self.latents[starts[some]]
        indices = first.repeat_interleave(W).index_copy_(0, place, self.latents)
        here = torch.arange(W) < counts[:, None]
        return values.view(B, W), indices.view(B, W), here


def pairs_above(z: Tensor, bound: Tensor, first_row: int) -> Pairs:
    """Those of a block of pre-activations [B, N] that starts at a row of the batch."""
    flat = marked(z > bound)
    rows = flat // z.shape[1]
    return Pairs(rows + first_row, flat - rows * z.shape[1], z.view(-1)[flat])


def pairs_above_screened(x: Tensor, encoder: Encoder, bound: Tensor) -> Pairs:
    """The same of a float32 encoder, whose product is only made where one in bfloat16 says so."""
    screen, N = Screen.of(encoder), len(encoder.W)
    found = []
    rows = max(1, _BLOCK_BYTES // (2 * N))
    with workspace.borrowed((min(rows, len(x)), N), torch.bfloat16) as buffer:
        for start in range(0, len(x), rows):
            here = x[start : start + rows]
            found.append(_of_block(here, encoder, screen, bound, buffer[: len(here)], start))
    return Pairs.joined(found, x.dtype)


def _of_block(
    x: Tensor, encoder: Encoder, screen: Screen, bound: Tensor, buffer: Tensor, start: int
) -> Pairs:
    bias = screen.raised(x, encoder.b - bound)
    if bias is None:
        return pairs_above(torch.addmm(encoder.b, x, encoder.W.t()), bound, start)
    y = torch.addmm(bias, x.to(torch.bfloat16), screen.W.t(), out=buffer)
    # Positive floats are positive integers, which numpy compares several times faster.
    with workspace.borrowed(tuple(y.shape), torch.bool) as positive:
        np.greater(y.view(torch.int16).numpy(), 0, out=positive.numpy())
        flat = marked(positive)
    rows = flat // len(encoder.b)
    latents = flat - rows * len(encoder.b)
    z = products_of_pairs(x, encoder.W, rows, latents).add_(encoder.b[latents])
    above = z > (bound if bound.dim() == 0 else bound[latents])
    return Pairs(rows[above] + start, latents[above], z[above])
