"""Read whole chunks of one shard and check its index, counts and hashes."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from lightsae.activations.shards.checked_read import all_finite, checksum, read_at
from lightsae.activations.shards.dtypes import Array, as_float32, storage
from lightsae.activations.shards.manifest import Manifest, ShardEntry
from lightsae.activations.shards.reading.hdf5_files import ObstacleError, obstacle_in, open_hdf5
from lightsae.activations.shards.reading.reader_processes import Located
from lightsae.activations.shards.running_moments import Moments
from lightsae.activations.shards.shard_file import index_names, shard_digest
from lightsae.errors import LightsaeError

_HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


class UnreadableShardError(LightsaeError):
    """A shard that may be whole cannot be read here: no permission, a lock, a newer format."""


class Shard:
    """One shard, its structure checked on opening and each chunk when it is read.

    Args:
        path: The HDF5 file.
        entry: What the manifest says about it.
        manifest: The manifest.

    Attributes:
        rows: Number of rows.
        chunk_rows: Rows per chunk; the last chunk may have fewer.
        chunk_bytes: Bytes of activations of a whole chunk.
        moments: Statistics of its rows.

    Raises:
        LightsaeError: If the file is missing, truncated, or is not what the manifest says.
    """

    def __init__(self, path: Path, entry: ShardEntry, manifest: Manifest) -> None:
        self.path, self._entry, self._manifest = path, entry, manifest
        self.rows = entry.rows
        self._file = self._open()
        try:
            self._check_structure()
        except LightsaeError:
            self.close()
            raise
        except _HDF5_ERRORS as error:
            self.close()
            what = f"cannot be read as a shard: {_first_line(error)}"
            raise self._broken(what, error) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy opens the file anew."""
        return Shard, (self.path, self._entry, self._manifest)

    def __enter__(self) -> "Shard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> h5py.File:
        """Open the file, or say what is wrong with it."""
        if not self.path.is_file():
            raise self._broken("is missing, but the manifest lists it")
        try:
            return open_hdf5(self.path, never_changes=True, rdcc_nbytes=0)
        except ObstacleError as error:
            raise self._broken("", error) from error
        except OSError as error:
            text = _first_line(error)
            what = "is truncated" if "truncated" in text else "is not a readable HDF5 file"
            raise self._broken(f"{what}, expected {self.rows} rows: {text}") from error

    def _broken(self, what: str, error: Exception | None = None) -> LightsaeError:
        """An error that begins with the file."""
        obstacle = None if error is None else obstacle_in(error)
        if obstacle is not None:
            return UnreadableShardError(f"{self.path}: cannot be read here: {obstacle}")
        return LightsaeError(f"{self.path}: {what}")

    def _dataset(self, name: str, dtype: Any, shape: tuple[int, ...]) -> h5py.Dataset:
        """A dataset that lies in this file, plain, with the expected dtype and shape."""
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise self._broken(f"has no dataset {name!r} of its own")
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise self._broken(f"{name!r} is not a dataset")
        if dataset.dtype != dtype:
            raise self._broken(f"{name} has dtype {dataset.dtype}, expected {np.dtype(dtype)}")
        if dataset.shape != shape:
            raise self._broken(f"{name} has shape {dataset.shape}, expected {shape}")
        if dataset.external or dataset.is_virtual or dataset.id.get_create_plist().get_nfilters():
            raise self._broken(f"{name} is external, virtual or filtered, expected plain data")
        return dataset

    def _check_structure(self) -> None:
        """Compare everything but the chunks' bytes with the manifest."""
        manifest, rows = self._manifest, self.rows
        kind = storage(manifest.dtype)
        self._rows_set = self._dataset("activations", kind.disk_dtype, (rows, manifest.d_in))
        stored = self._rows_set.attrs.get("dtype")
        if stored != manifest.dtype:
            raise self._broken(f"activations are stored as {stored}, expected {manifest.dtype}")
        chunks = self._rows_set.chunks
        if chunks is None or chunks[1] != manifest.d_in:
            raise self._broken(f"activations has chunks {chunks}, expected whole rows")
        self.chunk_rows = int(chunks[0])
        self.n_chunks = -(-rows // self.chunk_rows)
        self._index_sets = [
            self._dataset(name, "<i8", (rows,)) for name in index_names(manifest.has_labels)
        ]
        for dataset in (self._rows_set, *self._index_sets):
            if dataset.chunks[0] != self.chunk_rows:
                raise self._broken(f"{dataset.name} has chunks {dataset.chunks}")
            if dataset.id.get_num_chunks() != self.n_chunks:
                raise self._broken(f"{dataset.name} lacks chunks, expected {self.n_chunks}")
        self._index_offsets: list[list[int]] | None = None
        self._offsets = _chunk_offsets(self._rows_set)
        shapes = {"chunk_hash": ("<u8", self.n_chunks), "index_hash": ("<u8", self.n_chunks)}
        shapes |= {"mean": ("<f8", manifest.d_in), "m2": ("<f8", manifest.d_in)}
        described = {
            name: self._dataset(name, dtype, (size,))[()] for name, (dtype, size) in shapes.items()
        }
        if shard_digest(rows, described) != self._entry.digest:
            raise self._broken("was altered: its hashes are not the ones the manifest recorded")
        self._chunk_hash, self._index_hash = described["chunk_hash"], described["index_hash"]
        self.moments = Moments(rows, described["mean"], described["m2"])
        self._row_bytes = manifest.d_in * kind.disk_dtype.itemsize
        self.chunk_bytes = self._row_bytes * self.chunk_rows
        self._descriptor = self._file.id.get_vfd_handle()

    def chunk_length(self, chunk: int) -> int:
        """Number of rows of a chunk."""
        return min(self.chunk_rows, self.rows - chunk * self.chunk_rows)

    def read_rows(self, chunk: int, out: Array, verify: bool = True, scanned: bool = False) -> int:
        """Read a chunk of activations.

        Args:
            chunk: Its position in the shard.
            out: uint8 buffer with room for the chunk's rows; its start is overwritten.
            verify: Check the hash and that every value is finite.
            scanned: Bytes with this hash were found to be finite before.

        Returns:
            Number of rows now at the start of `out`.

        Raises:
            LightsaeError: Naming file and rows, if the bytes are not the ones that were written.
        """
        start, count = chunk * self.chunk_rows, self.chunk_length(chunk)
        used = out[: self._row_bytes * count]
        try:
            self._fill(used, chunk)
        except _HDF5_ERRORS as error:
            raise self._unreadable(start, count, error) from error
        if verify:
            if checksum(used) != self._chunk_hash[chunk]:
                raise self._altered(start, count, "activations")
            if not scanned and not all_finite(used, self._manifest.dtype):
                raise self._not_finite(start, used)
        return count

    def located(self, chunk: int, verify: bool, scanned: bool) -> Located:
        """Where the activations of a chunk lie, and what is to be checked; see `read_rows`."""
        size = self._row_bytes * self.chunk_length(chunk)
        expected = int(self._chunk_hash[chunk]) if verify else None
        return Located(str(self.path), self._offsets[chunk], size, expected, scanned or not verify)

    def read_index(self, chunk: int, verify: bool = True) -> Array:
        """Read a chunk's sample index, token index and label, if any.

        Args:
            chunk: Its position in the shard.
            verify: Check the hash.

        Returns:
            Int64 `[2 or 3, rows]`.

        Raises:
            LightsaeError: Naming file and rows, if the bytes are not the ones that were written.
        """
        start, count = chunk * self.chunk_rows, self.chunk_length(chunk)
        index = np.empty((len(self._index_sets), self.chunk_rows), "<i8")
        try:
            for column, line in enumerate(index):
                self._fill_index(line.view(np.uint8), column, chunk)
        except _HDF5_ERRORS as error:
            raise self._unreadable(start, count, error) from error
        index = index[:, :count]
        if verify and checksum(*index) != self._index_hash[chunk]:
            raise self._altered(start, count, "sample_index, token_index or label")
        return index

    def _fill_index(self, out: Array, column: int, chunk: int) -> None:
        """Copy a chunk of an index dataset."""
        if not hasattr(os, "preadv"):
            self._index_sets[column].id.read_direct_chunk((chunk * self.chunk_rows,), out=out)
            return
        if self._index_offsets is None:
            self._index_offsets = [_chunk_offsets(dataset) for dataset in self._index_sets]
        read_at(self._descriptor, self._index_offsets[column][chunk], out)

    def _fill(self, out: Array, chunk: int) -> None:
        """Copy a chunk of activations; HDF5 would hold the interpreter meanwhile."""
        if not hasattr(os, "preadv"):
            whole = np.empty(self.chunk_bytes, np.uint8)
            self._rows_set.id.read_direct_chunk((chunk * self.chunk_rows, 0), out=whole)
            out[:] = whole[: out.size]
            return
        read_at(self._descriptor, self._offsets[chunk], out)

    def _unreadable(self, start: int, count: int, error: Exception) -> LightsaeError:
        """An error about rows that the system or the library does not read."""
        rows = f"rows {start}-{start + count - 1}"
        return self._broken(f"{rows} cannot be read: {_first_line(error)}", error)

    def _altered(self, start: int, count: int, what: str) -> LightsaeError:
        """An error about bytes that changed after they were written."""
        return self._broken(
            f"rows {start}-{start + count - 1} were altered: the hash of {what} differs"
        )

    def _not_finite(self, start: int, used: Array) -> LightsaeError:
        """An error about the first value that is NaN or infinite."""
        rows = as_float32(used, self._manifest.dtype, self._manifest.d_in)
        row, column = np.argwhere(~np.isfinite(rows))[0]
        return self._broken(
            f"row {start + row} column {column} is {rows[row, column]}, expected a finite number"
        )


def _chunk_offsets(dataset: h5py.Dataset) -> list[int]:
    """Where each chunk of a dataset lies in the file, in bytes."""
    offsets: dict[int, int] = {}
    dataset.id.chunk_iter(
        lambda stored: offsets.update({stored.chunk_offset[0]: stored.byte_offset})
    )
    return [offsets[start] for start in sorted(offsets)]


def _first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
