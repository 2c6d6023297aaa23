"""Reading groups of chunks ahead in threads while earlier groups are used."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from threading import Event
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.loading.batch_assembly import LoadedGroup
from lightsae.activations.loading.buffer_pool import Slabs
from lightsae.activations.loading.epoch_plan import Group
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.row_source import Piece, Place, RowSource

_T = TypeVar("_T")


class _Order(NamedTuple):
    """The order of a group's rows.

    Attributes:
        places: Int64 `[n]`, which of the stored rows each is.
        columns: Int64 `[2 or 3, n]`, what is stored beside each; None if not known yet.
        pieces: Where the rows of each chunk belong.
    """

    places: Array
    columns: Array | None
    pieces: list[Piece]


class _Loading(NamedTuple):
    """A group that is being read."""

    group: Group
    rows: Tensor
    order: _Order
    finish: Callable[[], object]

    def wait(self, reader: "GroupReader") -> LoadedGroup:
        """The group; raises what a reader met."""
        self.finish()
        places, columns, _ = self.order
        if columns is None:
            columns = _taken(reader.index(self.group), places)
        return LoadedGroup(self.rows[: len(places)], columns)


@dataclass
class GroupReader:
    """Reads groups of a source into memory that is used again.

    Attributes:
        source: The rows.
        in_split: From the sample indices of rows, which of them are wanted.
        rows_per_chunk: Int64 `[n_chunks]`, how many of each chunk's rows are.
        group_rows: Stored rows that a group holds at most, unless one chunk alone has more.
        readers: How many chunks are read at a time; 0 reads between two groups.
        pools: Memory of the groups.
        ahead: How many groups are read before they are asked for.
    """

    source: RowSource
    in_split: Callable[[Array], Array]
    rows_per_chunk: Array
    group_rows: int
    readers: int
    pools: Slabs
    ahead: int

    def __post_init__(self) -> None:
        stored = self.source.stored_rows
        self._pool_rows = int(min(stored.sum(), max(self.group_rows, stored.max())))

    def read(
        self, groups: list[Group], shuffle: list[int] | None
    ) -> Generator[LoadedGroup, None, None]:
        """Yield each group while the next are read.

        Args:
            groups: The groups.
            shuffle: Shuffle the rows of each by a generator seeded with this and the group's
                number; None leaves them as they are stored.

        Yields:
            The groups; memory of one comes back when nothing refers to it.
        """
        chunks = np.concatenate([group.chunks for group in groups])
        ended = Event()
        with (
            self.source.reading(chunks) as place,
            ThreadPoolExecutor(self.readers, "rows") if self.readers else _Here() as threads,
        ):
            begun = _Begun(self, threads, place, ended, shuffle).each(groups)
            under_way = deque(islice(begun, self.ahead))
            try:
                while under_way:
                    loaded = under_way[0].wait(self)
                    under_way.popleft()
                    yield loaded
                    del loaded  # Its memory is needed for the next.
                    under_way.extend(islice(begun, 1))
            finally:
                ended.set()
                for left in under_way:
                    # Nothing may be written once the memory is somebody else's.
                    with suppress(Exception):
                        left.finish()

    def order(self, group: Group, shuffle: list[int] | None) -> _Order:
        """Find the order of a group's rows."""
        columns = self.index(group)
        lengths = self.source.stored_rows[group.chunks]
        places = self._places(group, np.cumsum(lengths), self.in_split(columns[0]))
        if shuffle is not None:
            np.random.default_rng([*shuffle, group.number]).shuffle(places)
        known = _taken(columns, places) if self.source.index_ahead else None
        pieces = _pieces(group.chunks, lengths, places, mixed=shuffle is not None)
        return _Order(places, known, pieces)

    def index(self, group: Group) -> Array:
        """Int64 `[2 or 3, stored rows]`, sample, token and label of a group's rows as stored."""
        return np.concatenate([self.source.read_index(chunk) for chunk in group.chunks.tolist()], 1)

    def _places(self, group: Group, ends: Array, mask: Array) -> Array:
        """Where the group's rows of the split lie, less those that are another rank's."""
        rows = self.rows_per_chunk[group.chunks]
        for part in np.flatnonzero((group.first > 0) | (group.last < rows)):
            chunk = mask[ends[part - 1] if part else 0 : ends[part]]
            places = np.flatnonzero(chunk)
            chunk[places[: group.first[part]]] = False
            chunk[places[group.last[part] :]] = False
        return np.flatnonzero(mask)

    def new_pool(self) -> Tensor:
        """Memory for any group."""
        return self.pools.take(self._pool_rows)


class _Begun(NamedTuple):
    """What one pass over some groups shares."""

    reader: GroupReader
    threads: Executor
    place: Place
    ended: Event
    shuffle: list[int] | None

    def each(self, groups: list[Group]) -> Iterator[_Loading]:
        """Let a group be read whenever one is asked for."""
        for group in groups:
            order, rows = self.reader.order(group, self.shuffle), self.reader.new_pool()
            pool = rows.view(-1).view(torch.uint8).numpy()
            finish = self.reader.source.begin(order.pieces, pool) or self._begin(order.pieces, pool)
            yield _Loading(group, rows, order, finish)

    def _begin(self, pieces: list[Piece], pool: Array) -> Callable[[], object]:
        """Let the threads read chunks, each the next that none has begun."""
        reading = [self.threads.submit(self._place, piece, pool) for piece in pieces]
        return lambda: [part.result() for part in reading]

    def _place(self, piece: Piece, pool: Array) -> None:
        """Read a chunk to its place, if somebody still waits for it."""
        if not self.ended.is_set():
            self.place([piece], pool)


def _taken(columns: Array, places: Array) -> Array:
    taken: Array = np.take(columns, places, 1, mode="clip")
    return taken


def _pieces(chunks: Array, lengths: Array, places: Array, mixed: bool) -> list[Piece]:
    """Where the rows of each chunk belong, from where each row is stored.

    Example:
        >>> _pieces(np.array([7, 9]), np.array([2, 3]), np.array([0, 1, 4]), mixed=False)
        [Piece(chunk=7, target=0), Piece(chunk=9, target=array([-1, -1,  2], dtype=int32))]
    """
    ends = np.cumsum(lengths)
    targets = np.full(ends[-1], -1, np.int32)
    targets[places] = np.arange(len(places), dtype=np.int32)
    parts = [targets[start:end] for start, end in pairwise([0, *ends.tolist()])]
    # Those of a chunk ascend, so all of them follow each other if as many as it has rows do.
    whole = (
        np.zeros(len(parts), bool) if mixed else np.minimum.reduceat(targets, ends - lengths) >= 0
    )
    return [
        Piece(chunk, int(part[0]) if plain else part)
        for chunk, part, plain in zip(chunks.tolist(), parts, whole.tolist(), strict=True)
    ]


class _Here(Executor):
    """Does the work at once, in the thread that asks for it."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        done: Future[_T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done
