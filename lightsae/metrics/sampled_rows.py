"""A sample of the rows of a data set: the same whatever the order, the batches and the ranks."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae.index_checks import integers

_LARGEST = 2**63 - 1


def _mixed(numbers: Tensor) -> Tensor:
    """Scatter int64 numbers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        numbers = (numbers ^ _shifted(numbers, shift)) * factor
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift right as if without sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def row_ranks(sample_index: Tensor, token_index: Tensor | None = None) -> Tensor:
    """A number for each row that looks random and depends on the row alone, int64 in [0, 2^63).

    Args:
        sample_index: Image of each row [rows], integers.
        token_index: Token of the image [rows], integers; left out where an image has one row.

    Example:
        >>> one, other = row_ranks(torch.tensor([0, 1]))
        >>> one == row_ranks(torch.tensor([0])), one == other
        (tensor([True]), tensor(False))
    """
    sample_index = integers("sample_index", sample_index)
    tokens = torch.zeros_like(sample_index) if token_index is None else token_index
    if tokens.shape != sample_index.shape:
        raise LightsaeError(
            f"token_index has shape {list(tokens.shape)}, expected {list(sample_index.shape)}"
        )
    return _mixed(_mixed(sample_index) + integers("token_index", tokens)) & _LARGEST


class SampledRows(ExactMetric):
    """What is kept of at most `max_rows` rows, chosen by `row_ranks`.

    A subclass adds a list state for each thing that is kept of a row, by `keep`.

    Args:
        max_rows: Rows that are kept at most.
        rows: Rows that all ranks will see together, if known: then few others are looked at.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    ranks: list[Tensor]
    limit: Tensor

    def __init__(self, max_rows: int, rows: int | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.max_rows = size("max_rows", max_rows)
        limit = _LARGEST
        if rows is not None and size("rows", rows) > self.max_rows:
            # Six standard deviations more than max_rows, so that hardly ever fewer are left.
            expected = self.max_rows + 6 * math.sqrt(self.max_rows)
            limit = min(int(expected / rows * _LARGEST), _LARGEST)
        self.add_state("limit", torch.tensor(limit), dist_reduce_fx="min")
        self._empty: dict[str, Tensor] = {}
        self._keeps("ranks", torch.empty(0, dtype=torch.long))

    def _keeps(self, name: str, empty: Tensor) -> None:
        """Add a list state; its parts are like `empty`, which has no rows."""
        self._empty[name] = empty
        self.add_state(name, [], dist_reduce_fx="cat")

    def wanted(self, sample_index: Tensor, token_index: Tensor | None = None) -> Tensor:
        """Which rows `update` would keep if they were all, bool [rows]; others may be left out.

        Args:
            sample_index: Image of each row [rows], integers.
            token_index: Token of the image [rows], integers; left out where an image has one row.

        Raises:
            LightsaeError: If they do not fit together or an image is -1, that is unknown.
        """
        require_tensors(sample_index=sample_index)
        if sample_index.numel() and bool((sample_index == -1).any()):
            raise LightsaeError("sample_index has -1: rows are sampled by their number")
        return row_ranks(sample_index, token_index) <= self.limit

    def _add(self, ranks: Tensor, **parts: Tensor) -> None:
        """Keep rows, and of all so far only those of the lowest ranks."""
        for name, part in {"ranks": ranks, **parts}.items():
            getattr(self, name).append(part)
        if sum(map(len, self.ranks)) > 2 * self.max_rows:
            self._compact()

    def _compact(self) -> None:
        """Keep the `max_rows` rows of the lowest ranks, in their order."""
        self._fill_empty()
        ranks, order = dim_zero_cat(self.ranks).sort(stable=True)
        if bool((ranks[1:] == ranks[:-1]).any()):
            raise LightsaeError(
                "two rows have the same sample_index and token_index: give token_index where an "
                "image has several rows, and each row once"
            )
        order = order[: self.max_rows]
        for name in self._empty:
            setattr(self, name, [dim_zero_cat(getattr(self, name))[order]])
        if len(ranks) >= self.max_rows:
            self.limit = self.limit.minimum(ranks[self.max_rows - 1])

    def _fill_empty(self) -> None:
        """Give a rank that saw nothing empty parts of the right dtype and width."""
        if len(self.ranks) == 0:
            for name, empty in self._empty.items():
                setattr(self, name, [empty.to(self.device)])

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """Gather the rows of every rank, those that saw nothing included."""
        self._compact()
        super()._sync_dist(dist_sync_fn, process_group)
