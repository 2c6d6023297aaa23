"""A random sample of rows in one pass, the same however rows are spread over batches and ranks."""

import torch
from torch import Tensor

from lightsae.metrics.sampled_rows import SampledRows, row_ranks


class RowSample(SampledRows):
    """At most `max_rows` of the rows seen, as they are.

    Args:
        max_rows: Rows to keep.
        d_in: Width of the rows.
        rows: Rows that all ranks will see together, if known.

    Example:
        >>> sample = RowSample(2, d_in=1)
        >>> sample.update(torch.ones(3, 1), torch.arange(3), torch.zeros(3).long())
        >>> sample.compute().shape
        torch.Size([2, 1])
    """

    kept: list[Tensor]

    def __init__(self, max_rows: int, d_in: int, rows: int | None = None) -> None:
        super().__init__(max_rows, rows)
        self._keeps("kept", torch.empty(0, d_in))

    def update(self, x: Tensor, sample_index: Tensor, token_index: Tensor) -> None:
        """Add rows.

        Args:
            x: Rows `[B, d_in]`; kept in float32.
            sample_index: Int64 `[B]`, the sample of each.
            token_index: Int64 `[B]`, the token of each.

        Raises:
            LightsaeError: If a sample is -1, that is unknown, or a row came before.
        """
        wanted = self.wanted(sample_index, token_index)
        if bool(wanted.any()):
            ranks = row_ranks(sample_index[wanted], token_index[wanted])
            self._add(ranks, kept=x.detach()[wanted].float())

    def compute(self) -> Tensor:
        """Float32 `[m, d_in]`, of all ranks."""
        self._compact()
        return self.kept[0]
