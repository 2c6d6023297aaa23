"""Shuffled batches from shards, whole chunks at a time."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import zip_longest
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.batch import ActivationBatch
from lightsae.activations.epoch import Group, Share, plan_epoch
from lightsae.activations.reader import ShardSet
from lightsae.activations.slabs import Slabs
from lightsae.activations.splits import Split, SplitRule
from lightsae.activations.storage import Array
from lightsae.errors import LightsaeError

_Work = SimpleQueue[tuple[int, int] | None]


class _Loaded(NamedTuple):
    """A group in memory: `order` says at which row of `pool` each of its rows lies."""

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


class _Loading(NamedTuple):
    """A group that threads are reading."""

    pool: Tensor
    order: Future[tuple[Array, Array]]
    reading: list[Future[None]]
    shuffled: bool

    def wait(self) -> _Loaded:
        """The group; raises what a thread met."""
        for part in self.reading:
            part.result()
        return _Loaded(self.pool, *self.order.result(), self.shuffled)


class ActivationLoader:
    """Iterates over one split of a folder of shards; a dataloader to Lightning.

    Chunks are put in an order drawn from (seed, epoch) and cut into one contiguous share per
    rank. A rank reads its chunks in groups of `buffer_rows / 2` stored rows, shuffles the rows of
    a group and gathers batches from it, while other threads read the next group. A batch that is
    not shuffled and lies in one piece is handed out where it was read, without a copy. Batches
    depend on (seed, epoch, rank, world size, batch and buffer size) only.

    With one rank every row of the split comes once an epoch. With several, a training loader
    (`shuffle=True`) gives every rank the same number of rows: `total % world_size` rows are left
    out, other ones in each epoch. A loader that does not shuffle leaves out none: ranks differ by
    one row at most and have the same number of batches.

    The position is saved by Lightning in its checkpoints and counts batches that training has
    finished. An iterator that is begun after another one delivered batches begins a new epoch.

    Args:
        shards: The shards.
        rule: Division into splits.
        split: The split to read.
        rows_per_chunk: Int64 `[n_chunks]`, rows of the split in each chunk (see `count_rows`).
        batch_size: Rows per batch; the last batch of an epoch may have fewer.
        shuffle: Shuffle, as for training; otherwise rows come in stored order.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        buffer_rows: Rows held in memory.
        dtype: Dtype of the activations delivered; None for the stored one.
        drop_last: Leave out a partial last batch.
        readers: Threads that read and check chunks.
        progress: Tells how many batches of the epoch training has finished and how many it wants,
            where that may differ from how many were fetched and how many there are.

    Raises:
        LightsaeError: If an argument is out of range or the split is empty for a rank.

    Example:
        >>> import tempfile
        >>> from lightsae.activations import Manifest, ShardWriter
        >>> from lightsae.activations.splits import count_rows, distinct_samples, split_rule
        >>> folder = tempfile.mkdtemp()
        >>> with ShardWriter(folder, Manifest(d_in=4, dtype="float16")) as writer:
        ...     writer.write(torch.randn(10, 4), sample_index=torch.arange(10))
        >>> shards = ShardSet(folder)
        >>> rule = split_rule(
        ...     distinct_samples(shards), val_fraction=0.2, test_fraction=0, seed=0)
        >>> rows = count_rows(shards, rule, ("train",))["train"]
        >>> loader = ActivationLoader(shards, rule, "train", rows, batch_size=3)
        >>> [len(batch.activations) for batch in loader]
        [3, 3, 2]
    """

    def __init__(
        self,
        shards: ShardSet,
        rule: SplitRule,
        split: Split,
        rows_per_chunk: Array,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        buffer_rows: int = 131_072,
        dtype: torch.dtype | None = torch.float32,
        drop_last: bool = False,
        readers: int = 2,
        progress: Callable[[], tuple[int, float]] | None = None,
    ) -> None:
        if batch_size < 1 or buffer_rows < 1:
            raise LightsaeError(
                f"batch_size is {batch_size} and buffer_rows {buffer_rows}, expected at least 1"
            )
        for name, value, least in (("seed", seed, 0), ("readers", readers, 1)):
            if value < least:
                raise LightsaeError(f"{name} is {value}, expected at least {least}")
        self._shards, self._rule, self._split = shards, rule, split
        self._rows_per_chunk = rows_per_chunk
        self._shuffle, self._seed, self._dtype = shuffle, seed, dtype
        self._group_rows = _group_rows(buffer_rows // 2, 1 if shuffle else batch_size)
        total = int(rows_per_chunk.sum())
        self._share = Share(total, rank, world_size, batch_size, shuffle, drop_last)
        self._readers, self._progress = readers, progress
        self._epoch = self._position = 0
        self._resumed = False
        stored = shards.chunks[:, 2]
        self._slab_rows = min(stored.sum(), max(self._group_rows, stored.max()))
        manifest = shards.manifest
        self._pools, self._batch_memory = (Slabs(manifest.d_in, manifest.dtype) for _ in range(2))
        if total < world_size or self._share.batches == 0:
            raise LightsaeError(
                f"{shards.folder}: the {split} split has {total} rows, too few for a batch "
                f"on each of {world_size} processes"
            )

    @property
    def epoch(self) -> int:
        """The epoch being read, from 0."""
        return self._epoch

    def __len__(self) -> int:
        """Number of batches in a whole epoch, the same on every rank."""
        return self._share.batches

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._epoch, self._position, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Epoch and number of batches finished in it; the same on every rank."""
        finished, wanted = (self._position, len(self)) if not self._progress else self._progress()
        finished = min(finished, self._position)
        if finished >= min(wanted, len(self)):
            return {"epoch": self._epoch + 1, "batches": 0}
        return {"epoch": self._epoch, "batches": finished}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iterator continue where `state_dict` was taken."""
        self._epoch, self._position = int(state_dict["epoch"]), int(state_dict["batches"])
        self._resumed = True

    def __iter__(self) -> Iterator[ActivationBatch]:
        """Continue after `load_state_dict`, otherwise begin an epoch."""
        if not self._resumed and self._position > 0:
            self._epoch, self._position = self._epoch + 1, 0
        self._resumed = False
        return self._batches(self._epoch, self._position)

    def _batches(self, epoch: int, position: int) -> Iterator[ActivationBatch]:
        """Assemble the batches from `position` on."""
        share = self._share
        groups, used = self._remaining(epoch, share.start(position))
        loaded = self._load_ahead(groups, epoch)
        group = next(loaded)
        try:
            for batch in range(position, share.batches):
                rows = share.start(batch + 1) - share.start(batch)
                assembly = _Assembly(rows, self._batch_memory)
                while assembly.missing:
                    if used == len(group.order):
                        del group  # The threads need its memory for the group after the next.
                        group, used = next(loaded), 0
                    used += assembly.take(group, used)
                self._position = batch + 1
                yield assembly.finish(self._dtype)
        finally:
            loaded.close()

    def _remaining(self, epoch: int, rows_done: int) -> tuple[list[Group], int]:
        """The groups still to be read, and how many rows of the first are done."""
        order = np.arange(len(self._rows_per_chunk))
        if self._shuffle:
            np.random.default_rng([self._seed, epoch]).shuffle(order)
        groups = plan_epoch(
            self._rows_per_chunk,
            self._shards.chunks[:, 2],
            self._share,
            order=order,
            group_rows=self._group_rows,
        )
        while len(groups) > 1 and rows_done >= groups[0].rows:
            rows_done -= groups.pop(0).rows
        return groups, rows_done

    def _load_ahead(self, groups: list[Group], epoch: int) -> Generator[_Loaded, None, None]:
        """Read each group while the one before it is used."""
        with ThreadPoolExecutor(self._readers, thread_name_prefix="shards") as threads:
            begun = self._begin_each(threads, groups, epoch)
            ahead = next(begun, None)
            while ahead is not None:
                current = ahead.wait()
                ahead = next(begun, None)
                yield current

    def _begin_each(
        self, threads: Executor, groups: list[Group], epoch: int
    ) -> Generator[_Loading, None, None]:
        """Let the threads read a group whenever one is asked for; its order is known by then."""
        order = threads.submit(self._order, groups[0], epoch)
        for group, following in zip_longest(groups, groups[1:]):
            pool = self._pools.take(self._slab_rows)
            loading = _Loading(pool, order, self._begin(threads, group, pool), self._shuffle)
            if following is not None:
                order = threads.submit(self._order, following, epoch)
            yield loading

    def _begin(self, threads: Executor, group: Group, pool: Tensor) -> list[Future[None]]:
        """Let the threads read a group, each the next chunk that none has begun."""
        raw = pool.view(-1).view(torch.uint8).numpy()
        rows = self._shards.chunks[group.chunks, 2]
        starts = (np.cumsum(rows) - rows) * self._shards.row_bytes
        work: _Work = SimpleQueue()
        for item in zip(group.chunks.tolist(), starts.tolist(), strict=True):
            work.put(item)
        for _ in range(self._readers):
            work.put(None)
        return [threads.submit(self._read, work, raw) for _ in range(self._readers)]

    def _read(self, work: _Work, raw: Array) -> None:
        """Read chunks, each to its place, until there is nothing left to do."""
        for chunk, start in iter(work.get, None):
            self._shards.read_rows(chunk, raw[start:])

    def _order(self, group: Group, epoch: int) -> tuple[Array, Array]:
        """Where the rows of a group will lie, shuffled, and what is stored beside each."""
        parts = [self._shards.read_index(chunk) for chunk in group.chunks]
        ends = np.cumsum([part.shape[1] for part in parts])
        columns = np.concatenate(parts, axis=1)
        places = self._places(group, ends, self._rule.mask(columns[0], self._split))
        if self._shuffle:
            key = [self._seed, epoch, self._share.rank, self._share.world_size, group.number]
            np.random.default_rng(key).shuffle(places)
        return places, np.take(columns, places, 1, mode="clip")

    def _places(self, group: Group, ends: Array, mask: Array) -> Array:
        """Where the group's rows of the split lie, less those that are another rank's."""
        rows = self._rows_per_chunk[group.chunks]
        for part in np.flatnonzero((group.first > 0) | (group.last < rows)):
            chunk = mask[ends[part - 1] if part else 0 : ends[part]]
            places = np.flatnonzero(chunk)
            chunk[places[: group.first[part]]] = False
            chunk[places[group.last[part] :]] = False
        return np.flatnonzero(mask)


class _Assembly:
    """A batch being put together from one group or more."""

    def __init__(self, rows: int, memory: Slabs) -> None:
        self.missing = self._rows = rows
        self._memory = memory
        self._activations: Tensor | None = None
        self._columns: list[Array] = []

    def take(self, group: _Loaded, start: int) -> int:
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

    def _gather(self, group: _Loaded, source: slice) -> None:
        """Copy rows of a group behind those that are there already."""
        if self._activations is None:
            self._activations = self._memory.take(self._rows)
        filled = self._rows - self.missing
        target = _plain(self._activations)[filled : filled + source.stop - source.start]
        # One thread of numpy: torch's would wait for a core that the reading thread occupies.
        np.take(_plain(group.pool), group.order[source], 0, out=target, mode="clip")

    def finish(self, dtype: torch.dtype | None) -> ActivationBatch:
        """The batch in the dtype asked for."""
        assert self._activations is not None
        activations = self._activations if dtype is None else self._activations.to(dtype)
        columns = [torch.from_numpy(column) for column in np.concatenate(self._columns, axis=1)]
        label = columns[2] if len(columns) == 3 else None
        return ActivationBatch(activations, columns[0], columns[1], label)


def _group_rows(most: int, multiple: int) -> int:
    """Rows of a group; a multiple of the batch where that saves copies of batches cut in two."""
    return max(1, most // multiple * multiple if most >= multiple else most)


def _plain(rows: Tensor) -> Array:
    """Rows as numpy sees them; bfloat16, which it does not know, as integers."""
    integer = torch.int32 if rows.dtype == torch.float32 else torch.int16
    array: Array = rows.view(integer).numpy()
    return array
