"""Codes and classes from batches and ranks, to fit probes on."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import Code, both_after, of_rows, require_tensors, size
from lightsae.metrics.probing.labelled_codes import LabelledCodes
from lightsae.metrics.sampled_rows import SampledRows, row_ranks


class LabelledRows(SampledRows):
    """Codes and classes of rows from batches and ranks, to fit probes on.

    Beyond `max_rows` rows, a sample of them that depends on their numbers alone, so that order,
    batches and ranks do not matter. The state is 16 bytes for each of `max_rows` k activations.

    Args:
        d_sae: Number of latents.
        k: Activations kept of each row, the largest.
        max_rows: Rows that are kept at most.
        rows: Rows that all ranks will see together, if known.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = LabelledRows(d_sae=3, k=1)
        >>> metric.update(torch.ones(1, 1), torch.tensor([[2]]), torch.tensor([7]), torch.tensor([0]))
        >>> metric.update(torch.ones(1, 1), torch.tensor([[1]]), torch.tensor([8]), torch.tensor([1]))
        >>> metric.compute().labels.sort().values
        tensor([7, 8])
    """  # noqa: E501

    values: list[Tensor]
    indices: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        d_sae: int,
        k: int,
        max_rows: int = 100_000,
        rows: int | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(max_rows, rows, **kwargs)
        self.d_sae, self.k = size("d_sae", d_sae), size("k", k)
        self._keeps("values", torch.empty(0, self.k, dtype=torch.float64))
        self._keeps("indices", torch.empty(0, self.k, dtype=torch.long))
        self._keeps("labels", torch.empty(0, dtype=torch.long))

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        labels: Tensor | None = None,
        sample_index: Tensor | None = None,
        token_index: Tensor | None = None,
    ) -> None:
        """Add a batch of codes.

        Args:
            values: A `SparseCode`, or activations [rows, places].
            indices: Latents [rows, places], integers; a `SparseCode` has them.
            labels: Class of each row [rows], any integers; behind a `SparseCode` it may be the
                second argument.
            sample_index: Image of each row [rows], integers; behind it.
            token_index: Token of the image [rows], integers; left out where an image has one row.

        Raises:
            LightsaeError: If shapes disagree, a latent is not in the dictionary, an image is
                unknown (-1) or a row is given twice.
        """
        indices, labels, sample_index = both_after(
            values, indices, labels, sample_index, "labels sample_index"
        )
        values, indices, labels, _ = of_rows(values, indices, labels, "labels", self.d_sae)
        require_tensors(values=values, sample_index=sample_index)
        if values.ndim != 2 or sample_index.shape != labels.shape:
            raise LightsaeError(
                f"values and sample_index have shapes {list(values.shape)} and "
                f"{list(sample_index.shape)}, expected [rows, k] and [rows]"
            )
        wanted = self.wanted(sample_index, token_index)
        ranks = row_ranks(sample_index, token_index)[wanted]
        values, indices = self._of_k_places(values[wanted].double(), indices[wanted])
        self._add(ranks, values=values, indices=indices, labels=labels[wanted])

    def compute(self) -> LabelledCodes:
        """Return the rows of all ranks, in an order that does not depend on batches and ranks."""
        self._compact()
        codes, indices, labels = self.values[0], self.indices[0], self.labels[0]
        return LabelledCodes(codes, indices, labels, self.d_sae)

    def _of_k_places(self, values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The largest k activations of each row, filled up with zeros."""
        if values.shape[1] > self.k:
            values, order = values.sort(dim=1, stable=True, descending=True)
            return values[:, : self.k], indices.gather(1, order[:, : self.k])
        fill = (0, self.k - values.shape[1])
        return pad(values, fill), pad(indices, fill)
