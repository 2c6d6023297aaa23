"""Batches put together from groups of rows in memory."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.batch import ActivationBatch
from lightsae.activations.slabs import Slabs
from lightsae.activations.storage import Array


class LoadedGroup(NamedTuple):
    """A group in memory.

    Attributes:
        pool: Its rows and others, `[n, d_in]` of the stored dtype.
        order: Int64 `[rows]`, at which row of `pool` each of its rows lies.
        columns: Int64 `[2 or 3, rows]`, what is stored beside each.
        shuffled: Whether `order` is; otherwise it ascends.
    """

    pool: Tensor
    order: Array
    columns: Array
    shuffled: bool

    def in_place(self, rows: slice) -> slice | None:
        """Where rows lie one after the other, if they do."""
        order = self.order[rows]
        if self.shuffled or order[-1] - order[0] + 1 != len(order):
            return None
        return slice(int(order[0]), int(order[-1]) + 1)


class Assembly:
    """A batch being put together from one group or more.

    Args:
        rows: Rows of the batch.
        memory: Where to copy them, if they do not lie in one piece.

    Attributes:
        missing: Rows still to be taken.
    """

    def __init__(self, rows: int, memory: Slabs) -> None:
        self.missing = self._rows = rows
        self._memory = memory
        self._activations: Tensor | None = None
        self._columns: list[Array] = []

    def take(self, group: LoadedGroup, start: int) -> int:
        """Take what is missing from the rows of a group after `start`; return how many."""
        taken = min(self.missing, len(group.order) - start)
        source = slice(start, start + taken)
        self._columns.append(group.columns[:, source])
        whole = group.in_place(source) if taken == self._rows else None
        if whole is None:
            self._gather(group, source)
        else:
            self._activations = group.pool[whole]
        self.missing -= taken
        return taken

    def _gather(self, group: LoadedGroup, source: slice) -> None:
        """Copy rows of a group behind those that are there already."""
        if self._activations is None:
            self._activations = self._memory.take(self._rows)
        filled = self._rows - self.missing
        target = _plain(self._activations)[filled : filled + source.stop - source.start]
        # One thread of numpy: torch's would wait for a core that the reading thread occupies.
        np.take(_plain(group.pool), group.order[source], 0, out=target, mode="clip")

    def finish(self, dtype: torch.dtype | None) -> ActivationBatch:
        """The batch in the dtype asked for; None leaves the stored one."""
        assert self._activations is not None
        activations = self._activations if dtype is None else self._activations.to(dtype)
        columns = [torch.from_numpy(column) for column in np.concatenate(self._columns, axis=1)]
        label = columns[2] if len(columns) == 3 else None
        return ActivationBatch(activations, columns[0], columns[1], label)


def _plain(rows: Tensor) -> Array:
    """Rows as numpy sees them; bfloat16, which it does not know, as integers."""
    integer: Any = torch.int32 if rows.dtype == torch.float32 else torch.int16
    array: Array = rows.view(integer).numpy()
    return array
