"""The places of a code [B, k] that count, row by row, where a batch leaves many of them unused."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def marked(mask: Tensor) -> Tensor:
    """Positions of a mask, flattened, ascending; numpy finds few in many faster than torch."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


class UsedPlaces(NamedTuple):
    """Places of a code that count, P in all.

    Attributes:
        shape: B and k.
        places: Positions in the flattened [B, k], ascending, [P]; None is all of them.
        rows: The row of each, [P].
        offsets: The first of each row, [B].
    """

    shape: tuple[int, int]
    places: Tensor | None
    rows: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, used: Tensor) -> "UsedPlaces":
        """Those that are marked, [B, k] bool."""
        B, k = used.shape
        places = marked(used)
        counts = used.sum(dim=1)
        rows = torch.arange(B).repeat_interleave(counts, output_size=len(places))
        return cls((B, k), places, rows, counts.cumsum(0) - counts)

    @classmethod
    def all(cls, code: Tensor) -> "UsedPlaces":
        """Every place of a code [B, k]."""
        B, k = code.shape
        rows = torch.arange(B)
        return cls((B, k), None, rows.repeat_interleave(k), rows * k)

    def take(self, code: Tensor) -> Tensor:
        """What a tensor [B, k] has there, [P]."""
        flat = code.reshape(-1)
        return flat if self.places is None else flat[self.places]

    def put(self, found: Tensor) -> Tensor:
        """Numbers of the places [P] as [B, k], 0 elsewhere."""
        if self.places is None:
            return found.view(self.shape)
        code = found.new_zeros(self.shape[0] * self.shape[1])
        return code.index_copy_(0, self.places, found).view(self.shape)
