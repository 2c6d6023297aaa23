"""Batches assembled from groups of rows in memory."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.loading.activation_batch import ActivationBatch
from lightsae.activations.loading.buffer_pool import Slabs
from lightsae.activations.shards.dtypes import Array


class LoadedGroup(NamedTuple):
    """A group in memory.

    Attributes:
        rows: `[n, d_in]` of the stored dtype.
        columns: Int64 `[2 or 3, n]`, what is stored beside each.
    """

    rows: Tensor
    columns: Array


class Assembly:
    """A batch being put together from one group or more.

    Args:
        rows: Rows of the batch.
        memory: Where to copy them, if they do not lie in one group.

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
        taken = min(self.missing, len(group.rows) - start)
        source = slice(start, start + taken)
        self._columns.append(group.columns[:, source])
        if taken == self._rows:
            self._activations = group.rows[source]
        else:
            self._copy(group.rows[source])
        self.missing -= taken
        return taken

    def _copy(self, rows: Tensor) -> None:
        """Copy rows behind those that are there already."""
        if self._activations is None:
            self._activations = self._memory.take(self._rows)
        filled = self._rows - self.missing
        # One thread of numpy: torch's would wait for a core that a reader occupies.
        np.copyto(_plain(self._activations)[filled : filled + len(rows)], _plain(rows))

    def finish(self) -> ActivationBatch:
        """The batch, in the stored dtype."""
        assert self._activations is not None
        columns = [torch.from_numpy(column) for column in np.concatenate(self._columns, axis=1)]
        label = columns[2] if len(columns) == 3 else None
        return ActivationBatch(self._activations, columns[0], columns[1], label)


def _plain(rows: Tensor) -> Array:
    """Rows as numpy sees them; bfloat16, which it does not know, as integers."""
    integer: Any = torch.int32 if rows.dtype == torch.float32 else torch.int16
    array: Array = rows.view(integer).numpy()
    return array
