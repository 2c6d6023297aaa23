"""Shuffled batches from shards or from a running model, whole chunks at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.loading.activation_batch import ActivationBatch
from lightsae.activations.loading.epoch_plan import Group, Share, plan_epoch
from lightsae.activations.loading.gpu_prefetch import Copies, ahead
from lightsae.activations.loading.paired_rows.sample_embeddings import SampleEmbeddings
from lightsae.activations.loading.row_stream import Batches, RowStream
from lightsae.activations.loading.splits import Split, SplitRule
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.row_source import RowSource
from lightsae.errors import LightsaeError


class ActivationLoader:
    """Iterates over one split of a folder of shards; a dataloader to Lightning.

    Chunks are put in an order drawn from (seed, epoch) and cut into one contiguous share per
    rank. A rank reads its chunks in groups of `buffer_rows / 2` stored rows, each row to its place
    in the shuffled order of the group, while batches are taken from the group before. A batch that
    lies in one group is handed out where it was read, without a copy. Batches depend on (seed,
    epoch, rank, world size, batch and buffer size) only.

    Every row of the split comes once an epoch, whatever the number of ranks: they differ by one row
    at most and have the same number of batches. With `drop_last` each leaves out less than a batch.

    The position is saved by Lightning in its checkpoints and counts batches that training has
    finished. An iterator that is begun after another one delivered batches begins a new epoch.

    Args:
        shards: The shards, or another source of rows.
        rule: Division into splits.
        split: The split to read.
        rows_per_chunk: Int64 `[n_chunks]`, rows of the split in each chunk (see `count_rows`).
        batch_size: Rows per batch; the last batch of an epoch may have fewer.
        shuffle: Shuffle, as for training; otherwise rows come in stored order.
        seed: Seed of the order.
        reshuffle: Draw another order for every epoch; otherwise all have that of the first.
        rank: This process.
        world_size: Number of processes.
        buffer_rows: Rows held in memory, up to twice as many where processes read.
        dtype: Dtype of the activations delivered; None for the stored one.
        drop_last: Leave out a partial last batch.
        readers: How many read and check chunks, each a process if the set is large, else a thread;
            0 does it between batches.
        progress: Tells how many batches of the epoch training has finished and how many it wants,
            where that may differ from how many were fetched and how many there are.
        copies: Brings batches to a device, each while the one before it is used; they are then of
            its dtype.
        embeddings: Embeddings of the samples, which batches are to have too.
        targets: Rows of another layer in the same chunks, which batches are to have too; held in
            memory besides.

    Raises:
        LightsaeError: If an argument is out of range or the split is empty for a rank.

    Example:
        >>> import tempfile
        >>> from lightsae.activations import Manifest, ShardSet, ShardWriter
        >>> from lightsae.activations.loading.splits import count_rows, distinct_samples, split_rule
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
        shards: RowSource,
        rule: SplitRule,
        split: Split,
        rows_per_chunk: Array,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        reshuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        buffer_rows: int = 131_072,
        dtype: torch.dtype | None = torch.float32,
        drop_last: bool = False,
        readers: int = 2,
        progress: Callable[[], tuple[int, float]] | None = None,
        copies: Copies | None = None,
        embeddings: SampleEmbeddings | None = None,
        targets: RowSource | None = None,
    ) -> None:
        if batch_size < 1 or buffer_rows < 1:
            raise LightsaeError(
                f"batch_size is {batch_size} and buffer_rows {buffer_rows}, expected at least 1"
            )
        for name, value, least in (("seed", seed, 0), ("readers", readers, 0)):
            if value < least:
                raise LightsaeError(f"{name} is {value}, expected at least {least}")
        self._shards, self._rows_per_chunk = shards, rows_per_chunk
        self._shuffle, self._seed, self._dtype = shuffle, seed, dtype
        self._reshuffle = reshuffle
        self._group_rows = _group_rows(buffer_rows // 2, 1 if shuffle else batch_size)
        total = int(rows_per_chunk.sum())
        self._share = Share(total, rank, world_size, batch_size, drop_last)
        self._progress, self._copies, self._embeddings = progress, copies, embeddings
        self._order = {
            "rows": total,
            "batch_size": batch_size,
            "buffer_rows": buffer_rows,
            "seed": seed,
            "world_size": world_size,
        }
        self._epoch = self._position = 0
        self._resumed = False
        if total < world_size or self._share.batches == 0:
            raise LightsaeError(
                f"{shards.name}: the {split} split has {total} rows, too few for a batch "
                f"on each of {world_size} processes"
            )
        in_split = partial(rule.mask, split=split)
        self._streams = [
            RowStream(source, in_split, rows_per_chunk, self._group_rows, readers, copies)
            for source in (shards, targets)
            if source is not None
        ]

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
        """Epoch and number of batches finished in it, and in which order; as on every rank."""
        finished, wanted = (self._position, len(self)) if not self._progress else self._progress()
        finished = min(finished, self._position)
        if finished >= min(wanted, len(self)):
            return {"epoch": self._epoch + 1, "batches": 0, **self._order}
        return {"epoch": self._epoch, "batches": finished, **self._order}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iterator continue where `state_dict` was taken.

        Raises:
            LightsaeError: If that was in the middle of an epoch whose batches were others.
        """
        for name, here in self._order.items():
            there = state_dict.get(name, here)
            if state_dict["batches"] > 0 and there != here:
                raise LightsaeError(
                    f"{self._shards.name}: cannot go on in the middle of an epoch: "
                    f"{name} was {there}, now it is {here}"
                )
        self._epoch, self._position = int(state_dict["epoch"]), int(state_dict["batches"])
        self._resumed = True

    def __iter__(self) -> Iterator[ActivationBatch]:
        """Continue after `load_state_dict`, otherwise begin an epoch."""
        if not self._resumed and self._position > 0:
            self._epoch, self._position = self._epoch + 1, 0
        self._resumed = False
        batches = self._batches(self._epoch if self._reshuffle else 0, self._position)
        if self._copies is not None:
            batches = ahead(batches, self._copies)
        return self._counted(batches, self._position)

    def _counted(self, batches: Batches, position: int) -> Batches:
        """Keep the position behind the batch delivered last."""
        with closing(batches):
            for number in range(position, self._share.batches):
                batch = next(batches)
                self._position = number + 1
                yield batch
                del batch  # Its memory is needed for the next.

    def _batches(self, epoch: int, position: int) -> Batches:
        """Assemble the batches from `position` on."""
        share = self._share
        groups, used = self._remaining(epoch, share.start(position))
        key = [self._seed, epoch, share.rank, share.world_size] if self._shuffle else None
        sizes = [
            share.start(batch + 1) - share.start(batch) for batch in range(position, share.batches)
        ]
        with ExitStack() as ended:
            batches, *targets = [
                ended.enter_context(closing(stream.batches(groups, used, sizes, key)))
                for stream in self._streams
            ]
            for batch in batches:
                yield self._finished(batch, *(next(rows).activations for rows in targets))
                del batch  # Its memory is needed for the next.

    def _finished(self, batch: ActivationBatch, targets: Tensor | None = None) -> ActivationBatch:
        """The batch in its dtype, with its targets and the embeddings of its samples."""
        batch = batch._replace(targets=targets)
        if self._dtype is not None and self._copies is None:
            batch = batch.with_rows_in(self._dtype)
        if self._embeddings is None:
            return batch
        return batch._replace(embeddings=self._embeddings.of(batch.sample_index))

    def _remaining(self, epoch: int, rows_done: int) -> tuple[list[Group], int]:
        """The groups still to be read, and how many rows of the first are done."""
        order = np.arange(len(self._rows_per_chunk))
        if self._shuffle:
            np.random.default_rng([self._seed, epoch]).shuffle(order)
        groups = plan_epoch(
            self._rows_per_chunk,
            self._shards.stored_rows,
            self._share,
            order=order,
            group_rows=self._group_rows,
        )
        while len(groups) > 1 and rows_done >= groups[0].rows:
            rows_done -= groups.pop(0).rows
        return groups, rows_done


def _group_rows(most: int, multiple: int) -> int:
    """Rows of a group; a multiple of the batch where that saves copies of batches cut in two."""
    return max(1, most // multiple * multiple if most >= multiple else most)
