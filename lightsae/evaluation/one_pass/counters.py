"""Counts of rows and images, summed over ranks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lightsae.metrics.metric_base import ExactMetric


class Counters(ExactMetric):
    """Whole numbers by name, summed over batches and ranks.

    Args:
        names: Their names.

    Example:
        >>> counters = Counters(["rows", "images"])
        >>> counters.update(rows=3)
        >>> counters.update(rows=4, images=1)
        >>> counters.compute()
        {'rows': 7, 'images': 1}
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = list(names)
        empty = torch.zeros(len(self._names), dtype=torch.int64)
        self.add_state("counts", empty, dist_reduce_fx="sum")

    def update(self, **added: int) -> None:
        """Add to some of them."""
        for name, number in added.items():
            self.counts[self._names.index(name)] += number

    def compute(self) -> dict[str, int]:
        """All of them."""
        return dict(zip(self._names, self.counts.tolist(), strict=True))
