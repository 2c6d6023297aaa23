"""One shard being written: whole chunks, their hashes and the statistics of their rows."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from lightsae.activations.shards.checked_read import checksum
from lightsae.activations.shards.dtypes import Array, as_float32, storage
from lightsae.activations.shards.norm_histogram import count_norms
from lightsae.activations.shards.running_moments import Moments

_BLOCK_BYTES = 512 << 10
INDEX_NAMES = ("sample_index", "token_index", "label")


def default_chunk_rows(d_in: int, dtype: str) -> int:
    """Rows per chunk: about 512 KiB, so that a chunk stays in cache while it is checked.

    Example:
        >>> default_chunk_rows(1024, "float16")
        256
    """
    return min(1024, max(1, _BLOCK_BYTES // (d_in * storage(dtype).disk_dtype.itemsize)))


def index_names(has_labels: bool) -> tuple[str, ...]:
    """Names of the index datasets of a shard."""
    return INDEX_NAMES if has_labels else INDEX_NAMES[:2]


class ShardFile:
    """An HDF5 shard under construction. Rows are appended; `finish` writes what describes them.

    Small chunks are hashed and written many at a time, in blocks of half a MiB.
    """

    def __init__(
        self, path: Path, d_in: int, dtype: str, chunk_rows: int, has_labels: bool
    ) -> None:
        self.path = path
        self._file = h5py.File(path, "w")
        self._d_in, self._dtype, self._chunk_rows = d_in, dtype, chunk_rows
        self._names = index_names(has_labels)
        disk_dtype = storage(dtype).disk_dtype
        chunk_bytes = chunk_rows * d_in * disk_dtype.itemsize
        self._block_rows = chunk_rows * max(1, _BLOCK_BYTES // chunk_bytes)
        self._rows = np.zeros((self._block_rows, d_in), disk_dtype)
        self._index = np.zeros((len(self._names), self._block_rows), "<i8")
        self._filled = self._written = self._room = 0
        self._hashes: tuple[list[int], list[int]] = ([], [])
        self.moments = Moments.empty(d_in)
        self.norms: Counter[str] = Counter()
        self._activations = self._file.create_dataset(
            "activations",
            shape=(0, d_in),
            maxshape=(None, d_in),
            chunks=(chunk_rows, d_in),
            dtype=disk_dtype,
        )
        self._activations.attrs["dtype"] = dtype
        self._index_sets = [
            self._file.create_dataset(
                name, shape=(0,), maxshape=(None,), chunks=(chunk_rows,), dtype="<i8"
            )
            for name in self._names
        ]

    @property
    def rows(self) -> int:
        """Number of rows appended so far."""
        return self._written + self._filled

    def discard(self) -> None:
        """Close and remove the file; a disk that is full may refuse even to close it."""
        with suppress(OSError, RuntimeError):
            self._file.close()
        self.path.unlink(missing_ok=True)

    def append(self, rows: Array, index: list[Array]) -> None:
        """Add rows `[n, d_in]` as they lie on disk with one int64 `[n]` per index dataset."""
        start = 0
        while start < len(rows):
            taken = min(len(rows) - start, self._block_rows - self._filled)
            target = slice(self._filled, self._filled + taken)
            self._rows[target] = rows[start : start + taken]
            for line, values in zip(self._index, index, strict=True):
                line[target] = values[start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == self._block_rows:
                self._flush()

    def _flush(self) -> None:
        """Write the chunks in memory, hash each and add their rows to the statistics."""
        if self._filled == 0:
            return
        self._rows[self._filled :] = 0
        self._index[:, self._filled :] = 0
        raw = self._rows[: self._filled].reshape(-1).view(np.uint8)
        values = as_float32(raw, self._dtype, self._d_in)
        self.moments = self.moments.merge(Moments.of(values))
        self.norms.update(count_norms(values))
        if self.rows > self._room:
            self._resize(2 * self.rows)
        self._write_chunks()
        self._written, self._filled = self.rows, 0

    def _write_chunks(self) -> None:
        """Hash and write each chunk in memory; of the last one only the rows there are count."""
        size, names = self._chunk_rows, len(self._names)
        by_chunk = np.ascontiguousarray(self._index.reshape(names, -1, size).swapaxes(0, 1))
        write = self._activations.id.write_direct_chunk
        writes = [dataset.id.write_direct_chunk for dataset in self._index_sets]
        for chunk, start in enumerate(range(0, self._filled, size)):
            rows, index = self._rows[start : start + size], by_chunk[chunk]
            used = min(size, self._filled - start)
            self._hashes[0].append(checksum(rows[:used]))
            lines = [index] if used == size else [line[:used] for line in index]
            self._hashes[1].append(checksum(*lines))
            write((self._written + start, 0), rows)
            for write_line, line in zip(writes, index, strict=True):
                write_line((self._written + start,), line)

    def _resize(self, rows: int) -> None:
        """Make room in the datasets; only chunks that are written take space."""
        for dataset in (self._activations, *self._index_sets):
            dataset.resize(rows, axis=0)
        self._room = rows

    def finish(self) -> str:
        """Write the last chunk, the hashes and the statistics, and close.

        Returns:
            The shard's digest.
        """
        self._flush()
        self._resize(self._written)
        described = {
            "chunk_hash": np.array(self._hashes[0], "<u8"),
            "index_hash": np.array(self._hashes[1], "<u8"),
            "mean": self.moments.mean.astype("<f8"),
            "m2": self.moments.m2.astype("<f8"),
        }
        for name, values in described.items():
            self._file.create_dataset(name, data=values)
        self._file.close()
        return shard_digest(self.rows, described)


def shard_digest(rows: int, described: dict[str, Array]) -> str:
    """Hash of what describes a shard: its row count, chunk hashes and statistics."""
    parts = [described[name] for name in ("chunk_hash", "index_hash", "mean", "m2")]
    return f"{checksum(np.array([rows], '<u8'), *parts):016x}"
