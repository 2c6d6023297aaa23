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
        d_out: Width of what is kept of each row's target; 0 keeps nothing.

    Example:
        >>> sample = RowSample(2, d_in=1)
        >>> sample.update(torch.ones(3, 1), torch.arange(3), torch.zeros(3).long())
        >>> sample.compute()[0].shape
        torch.Size([2, 1])
    """

    kept: list[Tensor]
    targets: list[Tensor]

    def __init__(self, max_rows: int, d_in: int, rows: int | None = None, d_out: int = 0) -> None:
        super().__init__(max_rows, rows)
        self._keeps("kept", torch.empty(0, d_in))
        self._keeps("targets", torch.empty(0, d_out))

    def update(
        self,
        x: Tensor,
        sample_index: Tensor,
        token_index: Tensor,
        targets: Tensor | None = None,
    ) -> None:
        """Add rows.

        Args:
            x: Rows `[B, d_in]`; kept in float32.
            sample_index: Int64 `[B]`, the sample of each.
            token_index: Int64 `[B]`, the token of each.
            targets: The target of each, `[B, d_out]`, likewise.

        Raises:
            LightsaeError: If a sample is -1, that is unknown, or a row came before.
        """
        wanted = self.wanted(sample_index, token_index)
        if bool(wanted.any()):
            ranks = row_ranks(sample_index[wanted], token_index[wanted])
            of_targets = x[:, :0] if targets is None else targets
            kept, aside = (rows.detach()[wanted].float() for rows in (x, of_targets))
            self._add(ranks, kept=kept, targets=aside)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Rows `[m, d_in]` of all ranks and their targets `[m, d_out]`, float32."""
        self._compact()
        return self.kept[0], self.targets[0]
