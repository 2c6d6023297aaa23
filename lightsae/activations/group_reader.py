"""Groups of chunks, each read by threads while the one before it is used."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from queue import SimpleQueue
from threading import Event
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.assembly import LoadedGroup
from lightsae.activations.epoch import Group
from lightsae.activations.row_source import ReadRows, RowSource
from lightsae.activations.slabs import Slabs
from lightsae.activations.storage import Array

_T = TypeVar("_T")
_Work = SimpleQueue[tuple[int, int] | None]
_Order = Future[tuple[Array, Array]]


class _Loading(NamedTuple):
    """A group that threads are reading."""

    pool: Tensor
    reading: list[Future[None]]
    order: _Order
    shuffled: bool

    def wait(self) -> LoadedGroup:
        """The group; raises what a thread met."""
        for part in self.reading:
            part.result()
        return LoadedGroup(self.pool, *self.order.result(), self.shuffled)


@dataclass
class GroupReader:
    """Reads groups of a source into memory that is used again.

    Attributes:
        source: The rows.
        in_split: From the sample indices of rows, which of them are wanted.
        rows_per_chunk: Int64 `[n_chunks]`, how many of each chunk's rows are.
        group_rows: Stored rows that a group holds at most, unless one chunk alone has more.
        readers: Threads that read; 0 reads in the one that asks.
        pools: Memory of the groups.
    """

    source: RowSource
    in_split: Callable[[Array], Array]
    rows_per_chunk: Array
    group_rows: int
    readers: int
    pools: Slabs

    def __post_init__(self) -> None:
        stored = self.source.stored_rows
        self._pool_rows = int(min(stored.sum(), max(self.group_rows, stored.max())))

    def read(
        self, groups: list[Group], shuffle: list[int] | None
    ) -> Generator[LoadedGroup, None, None]:
        """Yield each group while threads read the one after it.

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
            self.source.reading(chunks) as read,
            self._threads() as threads,
            _setting(ended),
        ):
            begun = _Begun(self, threads, read, ended, shuffle).each(groups)
            ahead = next(begun, None)
            while ahead is not None:
                current = ahead.wait()
                ahead = next(begun, None)
                yield current

    def _threads(self) -> Executor:
        return ThreadPoolExecutor(self.readers, "rows") if self.readers else _Here()

    def order(self, group: Group, shuffle: list[int] | None) -> tuple[Array, Array]:
        """Where the rows of a group will lie, shuffled, and what is stored beside each."""
        parts = [self.source.read_index(chunk) for chunk in group.chunks.tolist()]
        ends = np.cumsum([part.shape[1] for part in parts])
        columns = np.concatenate(parts, axis=1)
        places = self._places(group, ends, self.in_split(columns[0]))
        if shuffle is not None:
            np.random.default_rng([*shuffle, group.number]).shuffle(places)
        return places, np.take(columns, places, 1, mode="clip")

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
    read: ReadRows
    ended: Event
    shuffle: list[int] | None

    def each(self, groups: list[Group]) -> Iterator[_Loading]:
        """Let the threads read a group whenever one is asked for.

        Its order is found before, where the source knows it, so that no thread waits for it.
        """
        ahead = self.reader.source.index_ahead
        order = self._order(groups[0]) if ahead else None
        for group, following in zip_longest(groups, groups[1:]):
            pool = self.reader.new_pool()
            reading = self._read(group, pool)
            known = self._order(group) if order is None else order
            loading = _Loading(pool, reading, known, self.shuffle is not None)
            if ahead and following is not None:
                order = self._order(following)
            yield loading

    def _order(self, group: Group) -> _Order:
        """Let a thread find the order of a group."""
        return self.threads.submit(self.reader.order, group, self.shuffle)

    def _read(self, group: Group, pool: Tensor) -> list[Future[None]]:
        """Let the threads read a group, each the next chunk that none has begun."""
        raw = pool.view(-1).view(torch.uint8).numpy()
        source, readers = self.reader.source, max(1, self.reader.readers)
        rows = source.stored_rows[group.chunks]
        starts = (np.cumsum(rows) - rows) * source.row_bytes
        work: _Work = SimpleQueue()
        for item in zip(group.chunks.tolist(), starts.tolist(), strict=True):
            work.put(item)
        for _ in range(readers):
            work.put(None)
        return [
            self.threads.submit(_read_each, self.read, work, raw, self.ended)
            for _ in range(readers)
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


def _read_each(read: ReadRows, work: _Work, raw: Array, ended: Event) -> None:
    """Read chunks, each to its place, as long as there are some and somebody waits for them."""
    for chunk, start in iter(work.get, None):
        if ended.is_set():
            return
        read(chunk, raw[start:])


@contextmanager
def _setting(ended: Event) -> Iterator[None]:
    """Set the event when the block ends."""
    try:
        yield
    finally:
        ended.set()
