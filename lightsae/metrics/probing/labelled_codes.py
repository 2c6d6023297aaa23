"""Sparse codes with a class for each row, as probes are fitted on them."""

from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.metrics.code_inputs import Code, after, require_tensors, unpacked
from lightsae.sae.index_checks import integers, within


class LabelledCodes:
    """Codes of rows with any number of latents each, and a class for each row.

    Attributes:
        values: Positive activations [entries], float64, descending within a row.
        indices: Latent of each entry [entries], int64.
        rows: Row of each entry, ascending [entries], int64.
        labels: Class of each row [rows], int64.
        d_sae: Number of latents.

    Args:
        values: A `SparseCode`, or activations [rows, k], or [entries] with `rows`. No latent twice
            in a row.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        labels: Class of each row [rows], any integers; behind a `SparseCode` it may be the second
            argument.
        d_sae: Number of latents; a `SparseCode` tells it.
        rows: Row of each entry [entries], integers, where the number of latents varies.

    Raises:
        LightsaeError: If shapes disagree or an index is out of range.

    Example:
        >>> values, indices = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0, 2], [1, 0]])
        >>> codes = LabelledCodes(values, indices, torch.tensor([7, 8]), d_sae=3)
        >>> codes.values, codes.indices, codes.rows
        (tensor([2., 1., 3.], dtype=torch.float64), tensor([2, 0, 1]), tensor([0, 0, 1]))
    """

    def __init__(
        self,
        values: Code,
        indices: Tensor | None = None,
        labels: Tensor | None = None,
        d_sae: int | None = None,
        *,
        rows: Tensor | None = None,
    ) -> None:
        indices, labels = after(values, indices, labels, "labels")
        values, indices, self.d_sae = unpacked(values, indices, d_sae)
        require_tensors(values=values, labels=labels)
        self.labels = integers("labels", labels)
        if rows is None:
            if values.ndim != 2 or labels.shape != values.shape[:1]:
                raise LightsaeError(
                    f"values and labels have shapes {list(values.shape)} and "
                    f"{list(labels.shape)}, expected [rows, k] and [rows]"
                )
            rows = torch.arange(len(values), device=values.device)
            rows = rows.unsqueeze(1).expand_as(values)
        if rows.shape != values.shape:
            raise LightsaeError(f"rows has shape {list(rows.shape)}, expected {list(values.shape)}")
        rows = within("rows", integers("rows", rows), len(labels), f"{len(labels)} rows")
        fired = values > 0
        self.values, self.indices, self.rows = values[fired].double(), indices[fired], rows[fired]
        order = self.indices.sort(stable=True).indices
        order = order[self.values[order].sort(stable=True, descending=True).indices]
        order = order[self.rows[order].sort(stable=True).indices]
        self.values, self.indices, self.rows = (
            each[order] for each in (self.values, self.indices, self.rows)
        )

    def __len__(self) -> int:
        """Rows."""
        return len(self.labels)

    def truncated(self, k: int) -> "LabelledCodes":
        """Only the k largest activations of each row, equal ones by the lowest latent."""
        per_row = torch.bincount(self.rows, minlength=len(self))
        starts = per_row.cumsum(0) - per_row
        place = torch.arange(len(self.rows), device=self.rows.device) - starts[self.rows]
        kept = place < k
        return LabelledCodes(
            self.values[kept], self.indices[kept], self.labels, self.d_sae, rows=self.rows[kept]
        )

    def matrix(self) -> Any:
        """The codes as a scipy CSR array [rows, d_sae], float64.

        Raises:
            MissingExtraError: If scipy is not installed.
        """
        sparse = require("scipy.sparse", extra="evaluation")
        values, indices, rows = (
            each.cpu().numpy() for each in (self.values, self.indices, self.rows)
        )
        return sparse.csr_array((values, (rows, indices)), shape=(len(self), self.d_sae))
