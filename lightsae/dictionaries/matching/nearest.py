"""The most similar latent of another dictionary, found block by block."""

from typing import NamedTuple

import torch
from torch import Tensor


class Nearest(NamedTuple):
    """The most similar latent of another dictionary.

    Attributes:
        similarity: Of each latent with that one [n], float32 or float64; NaN where there is none.
        index: Which it is, the lowest of equals [n], int64; -1 where there is none.
    """

    similarity: Tensor
    index: Tensor  # type: ignore[assignment]  # not tuple.index


class LargestSoFar:
    """The largest similarity of each latent so far, the first of equals, and whose it was.

    Example:
        >>> largest = LargestSoFar(1, torch.float32, "cpu")
        >>> largest.put_rows(slice(0, 1), slice(4, 6), torch.tensor([[0.25, 0.5]]))
        >>> largest.nearest()
        Nearest(similarity=tensor([0.5000]), index=tensor([5]))
    """

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self._similarity = torch.full((n,), -torch.inf, dtype=dtype, device=device)
        self._index = torch.full((n,), -1, device=device)

    def put_rows(self, rows: slice, columns: slice, block: Tensor) -> None:
        """Take what is larger for the rows of a block; -inf is no similarity."""
        largest, place = block.max(dim=1)
        better = largest > self._similarity[rows]
        self._similarity[rows] = largest.where(better, self._similarity[rows])
        self._index[rows] = (place + columns.start).where(better, self._index[rows])

    def put_columns(self, rows: slice, columns: slice, block: Tensor) -> None:
        """Take what is larger for its columns."""
        largest = block.amax(dim=0)
        better = (largest > self._similarity[columns]).nonzero()[:, 0]
        # Places along the strided side are slow to find: only where there is something to take.
        self._index[columns.start + better] = block[:, better].argmax(dim=0) + rows.start
        self._similarity[columns.start + better] = largest[better]

    def nearest(self) -> Nearest:
        """What was found; NaN and -1 where nothing was."""
        return Nearest(self._similarity.where(self._index >= 0, torch.nan), self._index)
