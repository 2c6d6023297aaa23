"""The shard folder of one layer while an extraction writes it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.extraction.images.batches import ImageBatch
from lightsae.activations.extraction.images.image_set import ImageSet, image_name
from lightsae.activations.extraction.rank_part import part_folders
from lightsae.activations.extraction.token_rows import TokenRows
from lightsae.activations.shards.disk_budget import shard_bytes
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest
from lightsae.activations.shards.manifest_comparison import check_same
from lightsae.activations.shards.shard_file import default_chunk_rows
from lightsae.activations.shards.writer import ShardWriter, UnstorableError
from lightsae.errors import LightsaeError


def has_manifest(folder: Path) -> bool:
    """Whether a folder was begun; os.path says no where Path raises, as for too long a name."""
    return os.path.exists(folder / MANIFEST_NAME)


def is_complete(folder: Path) -> bool:
    """Whether a folder is the whole result of an extraction."""
    return has_manifest(folder) and Manifest.load(folder).complete


def begun_with(folders: Iterable[Path]) -> set[str]:
    """Fingerprints of the images that folders, or parts of them, were begun with."""
    found = set()
    for folder in folders:
        parts = part_folders(folder) if os.path.isdir(folder) else ()
        for path in filter(has_manifest, (folder, *parts)):
            with suppress(LightsaeError):  # which is told when it is gone on with
                found.add(str(Manifest.load(path).settings.get("data")))
    return found


class LayerFolder:
    """Begins a folder or goes on with it.

    Args:
        out: The folder.
        wanted: Its manifest to be, the width unknown as yet.
        images: The images that its rows are of.
        rows_per_shard: A shard ends once it has this many rows.
        skip: Leave out images with a value that cannot be stored, instead of an error.

    Attributes:
        manifest: As far as it is written.
        complete: Whether there is nothing left to do.
        done: Images behind which the next rows come.
        skipped: What was wrong with those that have no rows.

    Raises:
        LightsaeError: If the folder was begun with other settings or images.
    """

    def __init__(
        self,
        out: Path,
        wanted: Manifest,
        images: ImageSet,
        rows_per_shard: int,
        skip: bool = False,
    ) -> None:
        self.out, self.manifest, self._images = out, wanted, images
        self._rows_per_shard, self._skip = rows_per_shard, skip
        self._writer: ShardWriter | None = None
        self._copies = copy_numbers(images.original_index)
        self.complete, self.done, self._any_rows = False, 0, False
        self.skipped: list[str] = []
        found = Manifest.load(out) if has_manifest(out) else None
        if found is not None and found.shards:
            self._go_on(found)

    def _go_on(self, found: Manifest) -> None:
        """Take over what is there."""
        there, here = found.settings.get("data"), self._images.fingerprint
        if there != here:
            raise LightsaeError(
                f"{self._images.name}: its images changed since {self.out} was begun with them "
                f"({there}, now {here}): bring them back or use another folder"
            )
        check_same(found, replace(self.manifest, d_in=found.d_in), self.out)
        self.manifest, self.complete, self._any_rows = found, found.complete, True
        self.done = int(found.progress.get("images", 0))
        self.skipped = list(found.progress.get("skipped", []))

    def open(self) -> None:
        """Lock the folder, if it was begun; a new one is made with its first rows."""
        if self.manifest.shards:
            self._writer = self._new_writer()

    def _new_writer(self) -> ShardWriter:
        """Lock the folder; what it held before must still be all."""
        writer = ShardWriter(self.out, self.manifest, rows_per_shard=self._rows_per_shard)
        if writer.manifest.shards != self.manifest.shards:
            writer.abort()
            raise LightsaeError(
                f"{self.out}: another process wrote to it while this one began: "
                "run the same command again, it goes on after what is there"
            )
        return writer

    @property
    def bytes_written(self) -> int:
        """Bytes of its shards and of the rows of the one under construction."""
        if self._writer is not None:
            return self._writer.bytes_with(0)
        return sum((self.out / entry.name).stat().st_size for entry in self.manifest.shards)

    def expected_bytes(self, rows: TokenRows | None, seen: int, images: int) -> int:
        """What it will take for a number of images, going by those seen, or by what is there."""
        if rows is None:
            return self.bytes_written * images // max(self.done, 1)
        batch, d_in = rows.activations.shape
        dtype, has_labels = self.manifest.dtype, self.manifest.has_labels
        chunk_rows = min(default_chunk_rows(d_in, dtype), self._rows_per_shard)
        # A shard ends with a whole batch.
        each = -(-self._rows_per_shard // max(batch, 1)) * max(batch, 1)
        shards, rest = divmod(batch * images // seen, each)
        one, last = (shard_bytes(n, chunk_rows, d_in, dtype, has_labels) for n in (each, rest))
        return shards * one + last

    def bytes_with(self, rows: TokenRows | None) -> int:
        """Bytes of its shards once it has some rows more."""
        if self._writer is None or rows is None:
            return self.bytes_written
        return self._writer.bytes_with(len(rows.activations))

    def add(self, rows: TokenRows | None, batch: ImageBatch, done: int) -> list[str]:
        """Write the rows of a batch; those of a copy count on after the original's.

        Args:
            rows: The rows, None if no image was readable.
            batch: The images.
            done: Images behind which the next rows come.

        Returns:
            What is wrong with the images that were readable and have no rows.

        Raises:
            LightsaeError: If a value cannot be stored and is not to be skipped, naming the image.
        """
        self.skipped += batch.problems
        self.done = done
        problems: list[str] = []
        if rows is None:
            return problems
        if self._writer is None:
            self.manifest = replace(self.manifest, d_in=rows.activations.shape[1])
            self._writer = self._new_writer()
        while True:
            try:
                self._write(self._writer, rows, batch)
                return problems
            except UnstorableError as error:
                image = rows.image[error.row]
                where = image_name(self._images, batch.positions[image])
                if not self._skip:
                    raise LightsaeError(
                        f"{where}: {error} (on_error skip goes on without it)"
                    ) from error
                problems.append(f"{where}: {error}")
                self.skipped.append(problems[-1])
                rows = rows.without(image)

    def _write(self, writer: ShardWriter, rows: TokenRows, batch: ImageBatch) -> None:
        """Write rows with the indices of the images that they are of."""
        writer.write(
            rows.activations,
            _of(self._images.original_index, batch)[rows.image],
            _of(self._copies, batch)[rows.image] * rows.span + rows.token,
            None if batch.labels is None else batch.labels[rows.image],
            {"images": self.done, "skipped": self.skipped.copy()},
        )
        self._any_rows |= len(rows.image) > 0

    def finish(self) -> None:
        """Mark the folder complete.

        Raises:
            LightsaeError: If no image has rows.
        """
        if self._writer is None or not self._any_rows:
            why = self.skipped[0] if self.skipped else "all tokens are padding"
            raise LightsaeError(f"data: none of the {self.done} images gives rows: {why}")
        self._writer.finish({"images": self.done, "skipped": self.skipped})
        self.manifest = self._writer.manifest

    def abort(self) -> None:
        """Drop the shard under construction and the lock."""
        if self._writer is not None:
            self._writer.abort()


def _of(numbers: Array, batch: ImageBatch) -> Tensor:
    """What belongs to the images of a batch."""
    return torch.from_numpy(numbers[batch.positions])


def copy_numbers(original_index: Array) -> Array:
    """How many earlier items belong to the same sample.

    Args:
        original_index: Int64 `[n]`.

    Returns:
        Int64 `[n]`.

    Example:
        >>> copy_numbers(np.array([5, 7, 5, 5, 7]))
        array([0, 0, 1, 2, 1])
    """
    order = np.argsort(original_index, kind="stable")
    _, starts, counts = np.unique(original_index[order], return_index=True, return_counts=True)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return numbers
