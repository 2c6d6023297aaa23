"""Which latents of several dictionaries fire on the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.sae import SparseCode


class FiringRows:
    """Rows that latents fire on, numbered over several dictionaries one after the other.

    Holds a row number for each activation: rows S k int32.

    Args:
        sizes: d_sae of each dictionary.

    Attributes:
        rows: Rows so far.

    Raises:
        MissingExtraError: If scipy is not installed.

    Example:
        >>> firings = FiringRows([2, 1])
        >>> values = torch.ones(2, 1)
        >>> codes = [SparseCode(values, torch.tensor([[0], [1]]), 2),
        ...          SparseCode(values, torch.tensor([[0], [0]]), 1)]
        >>> firings.update(codes)
        >>> firings.counts()
        tensor([1, 1, 2])
        >>> firings.iou(torch.tensor([0]), torch.tensor([1, 2]))
        tensor([[0.0000, 0.5000]], dtype=torch.float64)
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sparse = require("scipy.sparse", extra="evaluation")
        self._sizes = list(sizes)
        self.rows = 0
        self._parts: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._matrix: Any = None

    @torch.no_grad()
    def update(self, codes: Sequence[SparseCode]) -> None:
        """Take the codes of a batch, one of each dictionary.

        Args:
            codes: In the order of the sizes, of the same rows.

        Raises:
            LightsaeError: If they are not.
        """
        lengths = {len(code) for code in codes}
        if [code.d_sae for code in codes] != self._sizes or len(lengths) > 1:
            found = [(len(code), code.d_sae) for code in codes]
            raise LightsaeError(
                f"codes (rows, d_sae) {found}, expected d_sae {self._sizes} of the same rows"
            )
        first = 0
        for code in codes:
            row, place = (code.values > 0).nonzero(as_tuple=True)
            column = code.indices[row, place] + first
            self._parts.append((_int32(row + self.rows), _int32(column)))
            first += code.d_sae
        self.rows += max(lengths, default=0)
        self._matrix = None

    def counts(self) -> Tensor:
        """Rows that each latent fires on, [sum of d_sae] int64."""
        return torch.from_numpy(np.diff(self._columns().indptr).astype(np.int64))

    def iou(self, latents: Tensor, others: Tensor) -> Tensor:
        """Intersection over union of the rows that two latents fire on.

        Args:
            latents: Numbers, [n].
            others: Numbers, [m].

        Returns:
            [n, m] float64; 0 where neither fires.
        """
        matrix, counts = self._columns(), self.counts().double()
        product = matrix[:, latents.numpy()].T @ matrix[:, others.numpy()]
        both = torch.from_numpy(product.toarray()).double()
        either = counts[latents][:, None] + counts[others] - both
        return both / either.clamp_min_(1)

    def _columns(self) -> Any:
        """The firings as a sparse matrix [rows, latents], by columns."""
        if self._matrix is None:
            rows, columns = (
                np.concatenate([np.zeros(0, np.int32), *parts])
                for parts in ([part[side] for part in self._parts] for side in (0, 1))
            )
            shape = self.rows, sum(self._sizes)
            ones = np.ones(len(rows), np.int32)
            self._matrix = self._sparse.csc_array((ones, (rows, columns)), shape=shape)
            self._matrix.data[:] = 1
        return self._matrix


def _int32(numbers: Tensor) -> np.ndarray[Any, Any]:
    return numbers.cpu().numpy().astype(np.int32)
