"""Write activations to a folder of HDF5 shards that is valid at every moment."""

import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.checked_read import all_finite
from lightsae.activations.shards.disk_budget import shard_bytes
from lightsae.activations.shards.dtypes import Array, storage
from lightsae.activations.shards.folder_lock import (
    check_writable,
    lock_folder,
    put_in_place,
    system_message,
)
from lightsae.activations.shards.input_checks import Given, float_rows, int64_index
from lightsae.activations.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardEntry,
    checked_progress,
    shard_name,
)
from lightsae.activations.shards.manifest_comparison import check_same
from lightsae.activations.shards.reading.reader import Shard
from lightsae.activations.shards.running_moments import Moments
from lightsae.activations.shards.shard_file import ShardFile, default_chunk_rows
from lightsae.errors import LightsaeError
from lightsae.folder_contents import require_no_other
from lightsae.plural import counted


class UnstorableError(LightsaeError):
    """A value is not finite, or too large for the stored dtype.

    Args:
        message: What is wrong with it.
        row: Which of the rows it is in.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class ShardWriter:
    """Appends rows to a folder, shard by shard.

    A shard is written under a temporary name, fsynced and renamed; then the manifest that lists it
    is replaced. Whatever interrupts the writer, the folder holds whole shards only, and a writer
    opened on it again continues after the last one. A shard ends with the first `write` that
    brings it to `rows_per_shard`, so no `write` is ever split over two shards.

    Args:
        folder: Where to write; made if missing.
        manifest: What the rows are: `d_in`, `dtype`, and where they come from. If the folder
            already has shards, all of these must agree with its manifest.
        rows_per_shard: A shard ends once it has this many rows.
        chunk_rows: Rows per HDF5 chunk, the unit of reading and hashing; by default 512 KiB, but
            no more than `rows_per_shard`.

    Attributes:
        manifest: The folder's manifest as it lies on disk.

    Raises:
        LightsaeError: If the folder holds something else (naming what differs), is complete,
            cannot be written, or is being written by another process.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with ShardWriter(folder, Manifest(d_in=4, dtype="float16")) as writer:
        ...     writer.write(torch.randn(10, 4), sample_index=torch.arange(10))
        >>> Manifest.load(folder).rows
        10
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        *,
        rows_per_shard: int = 262_144,
        chunk_rows: int | None = None,
    ) -> None:
        _check_arguments(folder, manifest, rows_per_shard=rows_per_shard, chunk_rows=chunk_rows)
        manifest = replace(
            manifest, complete=False, rows=0, mean=[], scale=[], norms={}, shards=[]
        ).checked("manifest")
        self.folder = Path(folder)
        self._rows_per_shard = rows_per_shard
        default = default_chunk_rows(manifest.d_in, manifest.dtype)
        # The last chunk of a shard takes as much of the disk as a whole one.
        self._chunk_rows = chunk_rows or min(default, rows_per_shard)
        self._shard: ShardFile | None = None
        self._progress: dict[str, Any] = {}
        self._lock = -1
        check_writable(self.folder)
        ours = not os.path.exists(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.folder)
            self.manifest = self._open_manifest(manifest)
            self._moments = self._stored_moments()
            shards = (self.folder / entry.name for entry in self.manifest.shards)
            self._shard_bytes = sum(path.stat().st_size for path in shards)
        except BaseException as error:
            if ours and self._lock >= 0:
                with suppress(OSError):  # it is not empty
                    self.folder.rmdir()
            self.abort()
            if not isinstance(error, OSError):
                raise
            message = f"{self.folder}: cannot be written: {system_message(error)}"
            raise LightsaeError(message) from error

    def _open_manifest(self, wanted: Manifest) -> Manifest:
        """Continue the folder's manifest, or start one."""
        for pattern in ("shard-*.h5.tmp", f".{MANIFEST_NAME}.tmp"):
            for leftover in self.folder.glob(pattern):
                leftover.unlink()
        found = Manifest.load(self.folder) if (self.folder / MANIFEST_NAME).exists() else None
        if found is None:
            require_no_other(self.folder, "shards")
        if found is None or not found.shards:
            wanted.save(self.folder)
            return wanted
        check_same(found, wanted, self.folder)
        if found.complete:
            rows = counted(found.rows, "row")
            raise LightsaeError(f"{self.folder}: is complete already ({rows})")
        return found

    def _stored_moments(self) -> Moments:
        """Statistics of the shards that are there already."""
        moments = Moments.empty(self.manifest.d_in)
        for entry in self.manifest.shards:
            with Shard(self.folder / entry.name, entry, self.manifest) as shard:
                moments = moments.merge(shard.moments)
        return moments

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abort()

    def write(
        self,
        activations: Given,
        sample_index: Given,
        token_index: Given | None = None,
        label: Given | None = None,
        progress: dict[str, Any] | None = None,
    ) -> None:
        """Append rows, given as tensors, numpy arrays or lists.

        Args:
            activations: Floats `[B, d_in]` on any device; stored in the manifest's dtype.
            sample_index: Integers `[B]`, the sample of each row.
            token_index: Integers `[B]`, the token of each row; zeros by default.
            label: Integers `[B]`, wanted exactly if the manifest says `has_labels`.
            progress: Stored in the manifest together with the shard that these rows end up in.

        Raises:
            LightsaeError: On a wrong shape or dtype, a value that is not finite or does not fit the
                stored dtype (naming sample and layer), or a full disk, after which the writer is at
                its end.
        """
        self._check_open()
        given = float_rows(activations, self.manifest.d_in)
        index = self._index(len(given), sample_index, token_index, label)
        self._check_labels(index)
        rows = self._stored(given, index)
        if progress is not None:
            self._progress = checked_progress(progress)
        if len(rows) == 0:
            return
        try:
            if self._shard is None:
                self._shard = self._new_shard()
            self._shard.append(rows, index)
            if self._shard.rows >= self._rows_per_shard:
                self._end_shard()
        except (OSError, RuntimeError) as error:
            raise self._disk_error(error) from error

    def bytes_with(self, rows: int) -> int:
        """Bytes of the whole shards, and of the one under construction with so many rows more."""
        manifest, shard = self.manifest, self._shard
        rows += 0 if shard is None else shard.rows
        return self._shard_bytes + shard_bytes(
            rows, self._chunk_rows, manifest.d_in, manifest.dtype, manifest.has_labels
        )

    def finish(self, progress: dict[str, Any] | None = None) -> None:
        """End the last shard and mark the folder complete.

        Args:
            progress: Stored in the manifest.

        Raises:
            LightsaeError: If nothing was ever written, or on a full disk.
        """
        if self.manifest.complete:
            return
        self._check_open()
        if progress is not None:
            self._progress = checked_progress(progress)
        try:
            if self._shard is not None:
                self._end_shard()
            if self.manifest.rows == 0:
                raise LightsaeError(f"{self.folder}: no row was written")
            self._replace_manifest(progress=self._progress, complete=True)
        except (OSError, RuntimeError) as error:
            raise self._disk_error(error) from error

    def abort(self) -> None:
        """Drop the shard under construction; earlier shards stay. Ends the writer."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check_open(self) -> None:
        """Refuse to go on without the lock: somebody else may be writing."""
        if self._lock < 0 or self.manifest.complete:
            raise LightsaeError(f"{self.folder}: this writer has ended, open another one")

    def _index(
        self, rows: int, sample: Given, token: Given | None, label: Given | None
    ) -> list[Array]:
        """The columns that are stored beside the rows, int64."""
        if (label is not None) != self.manifest.has_labels:
            raise LightsaeError(
                f"{self.folder}: {'no ' if label is None else ''}label is given, the manifest has "
                f"has_labels = {self.manifest.has_labels}"
            )
        token = np.zeros(rows, np.int64) if token is None else token
        index = {"sample_index": sample, "token_index": token}
        index |= {} if label is None else {"label": label}
        return [int64_index(name, given, rows) for name, given in index.items()]

    def _check_labels(self, index: list[Array]) -> None:
        """Refuse labels that no class has, where classes are named."""
        names = len(self.manifest.classes)
        if not (names and self.manifest.has_labels):
            return
        for row in np.flatnonzero(index[-1] >= names).tolist():
            raise LightsaeError(
                f"{self.folder}: sample {index[0][row]} has label {index[-1][row]}, classes has "
                f"{names} names"
            )

    def _stored(self, rows: Tensor, index: list[Array]) -> Array:
        """The rows as they lie on disk, refused where a value is lost."""
        kind = storage(self.manifest.dtype)
        stored = rows.to(kind.torch_dtype).contiguous()
        raw: Array = stored.view(-1).view(torch.uint8).numpy()
        if not all_finite(raw, self.manifest.dtype):
            raise self._lost_value(rows, ~torch.isfinite(stored), index)
        return raw.view(kind.disk_dtype).reshape(stored.shape)

    def _lost_value(self, rows: Tensor, wrong: Tensor, index: list[Array]) -> UnstorableError:
        """The first value that cannot be stored."""
        row, column = (int(i) for i in wrong.nonzero()[0])
        value = float(rows[row, column])
        where = (
            f"sample {index[0][row]}, token {index[1][row]}, "
            f"layer {self.manifest.layer or 'unnamed'!r}: activation [{column}] is {value:g}"
        )
        if not np.isfinite(value):
            return UnstorableError(f"{where}, expected a finite number", row)
        dtype = self.manifest.dtype
        fits = dtype == "float16" and abs(value) <= torch.finfo(torch.bfloat16).max
        larger = ": use dtype float32 or bfloat16" if fits else ""
        return UnstorableError(f"{where}, too large for {dtype}{larger}", row)

    def _new_shard(self) -> ShardFile:
        """Open the next shard under its temporary name."""
        manifest = self.manifest
        return ShardFile(
            self.folder / f"{shard_name(len(manifest.shards))}.tmp",
            manifest.d_in,
            manifest.dtype,
            self._chunk_rows,
            manifest.has_labels,
        )

    def _end_shard(self) -> None:
        """Put the shard in place, then the manifest that lists it."""
        shard = self._shard
        assert shard is not None
        name = shard_name(len(self.manifest.shards))
        digest = shard.finish()
        put_in_place(shard.path, self.folder / name)
        self._shard_bytes += (self.folder / name).stat().st_size
        self._shard = None
        self._moments = self._moments.merge(shard.moments)
        entry = ShardEntry(name, shard.rows, digest)
        self._replace_manifest(
            shards=[*self.manifest.shards, entry],
            rows=self.manifest.rows + shard.rows,
            mean=self._moments.mean.tolist(),
            scale=self._moments.scale.tolist(),
            norms=dict(Counter(self.manifest.norms) + shard.norms),
            progress=self._progress,
        )

    def _replace_manifest(self, **changes: Any) -> None:
        """Save a changed manifest; only then is it ours."""
        manifest = replace(self.manifest, **changes)
        manifest.save(self.folder)
        self.manifest = manifest

    def _disk_error(self, error: Exception) -> LightsaeError:
        """Give up the shard that could not be written."""
        kept = len(self.manifest.shards)
        before = "the shard before it is" if kept == 1 else f"the {kept} shards before it are"
        self.abort()
        return LightsaeError(
            f"{self.folder}: cannot write {shard_name(kept)} ({system_message(error)}); "
            f"{before} whole: free some space and run the same command again"
        )


def _check_arguments(folder: object, manifest: object, **sizes: Any) -> None:
    """Refuse what no writer can be made of."""
    if not isinstance(manifest, Manifest):
        raise LightsaeError(f"manifest is a {type(manifest).__name__}, expected a Manifest")
    if folder == "":
        raise LightsaeError("folder is '', expected the name of one")
    for name, size in sizes.items():
        integer = isinstance(size, int | np.integer)
        if size is not None and not (integer and int(size) >= 1):
            raise LightsaeError(f"{name} is {size!r}, expected an integer of at least 1")
    storage(manifest.dtype)
