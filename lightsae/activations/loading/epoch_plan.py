"""The plan of an epoch: chunk groups of each rank, and where batches end."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.plural import counted


class Group(NamedTuple):
    """Chunks that lie in memory together.

    Attributes:
        number: Position of the group in the epoch.
        chunks: Int64 `[n]`, chunks in file order.
        first: Int64 `[n]`, the first of each chunk's rows of the split that is taken.
        last: Int64 `[n]`, the one after the last.
    """

    number: int
    chunks: Array
    first: Array
    last: Array

    @property
    def rows(self) -> int:
        """Number of rows that the group delivers."""
        return int((self.last - self.first).sum())


@dataclass(frozen=True)
class Share:
    """The part of a split's rows that one rank reads.

    Together the ranks read every row once; they differ by at most one, and have as many batches.

    Attributes:
        total: Rows of the split.
        rank: This rank.
        world_size: Number of ranks.
        batch_size: Rows per batch.
        drop_last: Whether a partial last batch is left out.
    """

    total: int
    rank: int
    world_size: int
    batch_size: int
    drop_last: bool = False

    def bounds(self, rank: int | None = None) -> tuple[int, int]:
        """First row of a rank and the one after its last, in the order of the epoch."""
        rank = self.rank if rank is None else rank
        return rank * self.total // self.world_size, (rank + 1) * self.total // self.world_size

    @property
    def rows(self) -> int:
        """Rows of this rank, before `drop_last`."""
        first, last = self.bounds()
        return last - first

    @property
    def batches(self) -> int:
        """Number of batches, the same on every rank; with a batch size of 1 some may have two rows.

        Example:
            >>> [Share(9, rank, 2, 4).batches for rank in range(2)]
            [2, 2]
        """
        most = self.total // self.world_size
        if self.drop_last:
            return most // self.batch_size
        # Of batches of one row a rank with a row less would have an empty one.
        most += self.total % self.world_size > 0 and self.batch_size > 1
        return -(-most // self.batch_size)

    def start(self, batch: int) -> int:
        """First row of a batch within this rank's rows.

        A rank with a row less than another may need one batch less: its last batch then gives a
        row away to a batch of its own.

        Example:
            >>> share = Share(9, 0, 2, 4)
            >>> [share.start(batch) for batch in range(3)]
            [0, 3, 4]
        """
        if self.drop_last:
            return batch * self.batch_size
        if batch == self.batches:
            return self.rows
        return max(0, min(batch * self.batch_size, self.rows - (self.batches - batch)))


def plan_epoch(
    rows_per_chunk: Array,
    stored_rows: Array,
    share: Share,
    *,
    order: Array,
    group_rows: int,
) -> list[Group]:
    """Divide a rank's share of an epoch into groups of whole chunks.

    Args:
        rows_per_chunk: Int64 `[n_chunks]`, each chunk's rows of the split.
        stored_rows: Int64 `[n_chunks]`, each chunk's rows of any split.
        share: The rank's share.
        order: Int64 `[n_chunks]`, the order of the chunks in this epoch.
        group_rows: Stored rows that a group holds at most, unless one chunk alone has more.

    Returns:
        The groups; a chunk at the edge of a share is in two ranks' groups, with other rows.

    Raises:
        LightsaeError: If the share has no row.

    Example:
        >>> share = Share(total=6, rank=1, world_size=2, batch_size=2)
        >>> rows = np.array([2, 2, 2])
        >>> plan_epoch(rows, rows, share, order=np.array([2, 0, 1]), group_rows=2)[0]
        Group(number=0, chunks=array([0]), first=array([1]), last=array([2]))
    """
    low, high = share.bounds()
    if low == high:
        raise LightsaeError(
            f"{counted(share.total, 'row')} cannot be divided over {share.world_size} processes"
        )
    ends = np.cumsum(rows_per_chunk[order])
    starts = ends - rows_per_chunk[order]
    wanted = np.flatnonzero((ends > low) & (starts < high) & (ends > starts))
    chunks = order[wanted]
    first = np.maximum(low - starts[wanted], 0)
    last = np.minimum(high, ends[wanted]) - starts[wanted]
    groups: list[Group] = []
    for part in _cut(stored_rows[chunks], group_rows):
        in_file = part[np.argsort(chunks[part])]
        groups.append(Group(len(groups), chunks[in_file], first[in_file], last[in_file]))
    return groups


def _cut(rows: Array, limit: int) -> list[Array]:
    """Positions of consecutive items whose rows add up to at most `limit`, or one item alone."""
    ends = np.cumsum(rows)
    parts = []
    start = 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        parts.append(np.arange(start, stop))
        start = stop
    return parts
