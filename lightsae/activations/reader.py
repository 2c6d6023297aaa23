"""Read whole chunks of shards, trusting nothing."""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock, local
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from lightsae.activations.format import MANIFEST_NAME, Manifest, ShardEntry
from lightsae.activations.raw import aligned, all_finite, checksum, put_rows, read_at
from lightsae.activations.reader_processes import Located, ReaderProcesses
from lightsae.activations.row_source import Piece, Place
from lightsae.activations.shard_file import index_names, shard_digest
from lightsae.activations.statistics import Moments
from lightsae.activations.storage import Array, as_float32, storage
from lightsae.errors import LightsaeError

_INDEX_BYTES = 64 << 20
# Starting a process takes as long as reading about so much.
_WORTH_PROCESSES = 256 << 20
_HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


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
            raise self._broken(f"cannot be read as a shard: {_first_line(error)}") from error

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
            return h5py.File(self.path, "r", rdcc_nbytes=0)
        except OSError as error:
            text = _first_line(error)
            what = "is truncated" if "truncated" in text else "is not a readable HDF5 file"
            raise self._broken(f"{what}, expected {self.rows} rows: {text}") from error

    def _broken(self, what: str) -> LightsaeError:
        """An error that begins with the file."""
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
        self._offsets = self._chunk_offsets()
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

    def _chunk_offsets(self) -> list[int]:
        """Where each chunk of activations lies in the file, in bytes."""
        offsets: dict[int, int] = {}
        self._rows_set.id.chunk_iter(
            lambda stored: offsets.update({stored.chunk_offset[0]: stored.byte_offset})
        )
        return [offsets[chunk * self.chunk_rows] for chunk in range(self.n_chunks)]

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
            for dataset, line in zip(self._index_sets, index, strict=True):
                dataset.id.read_direct_chunk((start,), out=line.view(np.uint8))
        except _HDF5_ERRORS as error:
            raise self._unreadable(start, count, error) from error
        index = index[:, :count]
        if verify and checksum(*index) != self._index_hash[chunk]:
            raise self._altered(start, count, "sample_index, token_index or label")
        return index

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
        return self._broken(f"{rows} cannot be read: {_first_line(error)}")

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


def _first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class ShardSet:
    """All shards of a folder as one list of chunks.

    Every shard's structure is checked on construction; files are opened when needed and at most
    `max_open` stay open. Several threads may read.

    Args:
        folder: A complete folder of shards.
        verify: Check hashes and finiteness of what is read.
        max_open: Number of files kept open.

    Attributes:
        manifest: The folder's manifest.
        chunks: Int64 `[n_chunks, 3]`: shard, chunk within it, number of rows.
        chunk_rows: Rows of a whole chunk, in the shard where they are fewest.
        index_ahead: An index can be read before the activations.

    Raises:
        LightsaeError: If the folder is incomplete, or a shard is not what the manifest says.

    Example:
        >>> import tempfile, torch
        >>> from lightsae.activations import ShardWriter
        >>> folder = tempfile.mkdtemp()
        >>> with ShardWriter(folder, Manifest(d_in=4, dtype="float32")) as writer:
        ...     writer.write(torch.ones(3, 4), sample_index=torch.arange(3))
        >>> shards = ShardSet(folder)
        >>> shards.read_index(0)[0]
        array([0, 1, 2])
    """

    def __init__(self, folder: str | Path, *, verify: bool = True, max_open: int = 128) -> None:
        self.folder = Path(folder)
        self.index_ahead = True
        self.manifest = Manifest.load(folder)
        if not self.manifest.complete:
            raise LightsaeError(
                f"{folder}: is incomplete ({self.manifest.rows} rows so far): "
                "run the command that began it again"
            )
        self._verify, self._max_open = verify, max_open
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._users: Counter[int] = Counter()
        self._lock = Lock()
        self._scratch = local()
        self._processes: ReaderProcesses | None = None
        self._indices: dict[int, Array] = {}
        self._index_room = _INDEX_BYTES
        moments, parts, chunk_rows = Moments.empty(self.manifest.d_in), [], []
        for position in range(len(self.manifest.shards)):
            with self._shard(position) as shard:
                parts.append(self._chunk_list(position, shard))
                chunk_rows.append(shard.chunk_rows)
                moments = moments.merge(shard.moments)
        self.chunk_rows = min(chunk_rows)
        self.chunks: Array = np.concatenate(parts)
        # What has the hash of bytes that were scanned need not be scanned again.
        self._scanned = np.zeros(len(self.chunks), np.bool_)
        if not moments.agrees(self.manifest.mean, self.manifest.scale):
            self.close()
            path = self.folder / MANIFEST_NAME
            raise LightsaeError(f"{path}: mean or scale was altered: it is not that of the shards")

    def _chunk_list(self, position: int, shard: Shard) -> Array:
        """The chunks of one shard."""
        lengths = [shard.chunk_length(chunk) for chunk in range(shard.n_chunks)]
        inner = np.arange(len(lengths))
        return np.stack([np.full_like(inner, position), inner, np.array(lengths)], axis=1)

    @contextmanager
    def _shard(self, position: int) -> Iterator[Shard]:
        """The shard at a position, open at least until the block ends."""
        shard = self._acquire(position)
        try:
            yield shard
        finally:
            self._release(position)

    def _acquire(self, position: int) -> Shard:
        """The shard at a position, which stays open until it is released."""
        with self._lock:
            if position not in self._open:
                entry = self.manifest.shards[position]
                self._open[position] = Shard(self.folder / entry.name, entry, self.manifest)
            self._open.move_to_end(position)
            self._users[position] += 1
            return self._open[position]

    def _release(self, position: int) -> None:
        """Close the files that were used longest ago, down to the number that may be open."""
        with self._lock:
            self._users[position] -= 1
            if len(self._open) > self._max_open:
                unused = [position for position in self._open if not self._users[position]]
                for surplus in unused[: len(self._open) - self._max_open]:
                    self._open.pop(surplus).close()

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def stored_rows(self) -> Array:
        """Int64 `[n_chunks]`, rows of each chunk."""
        return self.chunks[:, 2]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of activations."""
        return self.manifest.d_in * storage(self.manifest.dtype).disk_dtype.itemsize

    def allocator(self, readers: int) -> Callable[[int], Array]:
        """What makes memory, uint8 `[size]`, that so many readers fill fastest.

        They are processes where that is worth it, which end when the files are closed.
        """
        stored = int(self.chunks[:, 2].sum()) * self.row_bytes
        if readers < 1 or stored < _WORTH_PROCESSES or not ReaderProcesses.possible():
            return aligned
        with self._lock:
            if self._processes is None:
                self._processes = ReaderProcesses(readers)
            return self._processes.allocate

    def reading(self, chunks: Array) -> AbstractContextManager[Place]:
        """Chunks can be read at any time, in any order and by several threads."""
        return nullcontext(self.place)

    def begin(self, pieces: Sequence[Piece], pool: Array) -> Callable[[], None] | None:
        """Let the processes read chunks to their places; see `RowSource.begin`."""
        processes = self._processes
        if processes is None or not processes.lent(pool):
            return None
        located = self._located([piece.chunk for piece in pieces])
        wait = processes.begin(pieces, located, pool, self.row_bytes, self.manifest.dtype)

        def finish() -> None:
            failed = wait()
            left = {piece.chunk for piece in failed}
            done = [piece.chunk for piece in pieces if piece.chunk not in left]
            self._scanned[done] |= self._verify
            self.place(failed, pool)

        return finish

    def place(self, pieces: Sequence[Piece], pool: Array) -> None:
        """Read the activations of chunks to their places.

        Args:
            pieces: The chunks.
            pool: uint8, whole rows.

        Raises:
            LightsaeError: Naming file and rows, if the bytes are not the ones that were written.
        """
        for piece in pieces:
            self._place(piece, pool)

    def _located(self, chunks: list[int]) -> list[Located]:
        """Where chunks lie; those of one shard are looked up together."""
        found: list[Located] = []
        scanned = self._scanned[chunks].tolist()
        places = zip(*self.chunks[chunks, :2].T.tolist(), scanned, strict=True)
        for position, part in groupby(places, key=itemgetter(0)):
            with self._shard(position) as shard:
                found += [shard.located(inner, self._verify, done) for _, inner, done in part]
        return found

    def _place(self, piece: Piece, pool: Array) -> None:
        """Read one chunk to its place in this thread."""
        if isinstance(piece.target, int):
            self.read_rows(piece.chunk, pool[piece.target * self.row_bytes :])
            return
        size = int(self.chunks[piece.chunk, 2]) * self.row_bytes
        if getattr(self._scratch, "bytes", pool[:0]).size < size:
            self._scratch.bytes = aligned(size)
        rows = self._scratch.bytes[:size]
        self.read_rows(piece.chunk, rows)
        put_rows(rows, piece.target, pool)

    def read_rows(self, chunk: int, out: Array) -> int:
        """Read the activations of a chunk into `out`, a uint8 buffer; see `Shard.read_rows`."""
        position, inner, _ = self.chunks[chunk].tolist()
        with self._shard(position) as shard:
            count = shard.read_rows(inner, out, self._verify, bool(self._scanned[chunk]))
        self._scanned[chunk] |= self._verify
        return count

    def read_index(self, chunk: int) -> Array:
        """Read sample index, token index and label of a chunk; see `Shard.read_index`.

        The first 64 MiB that are read stay in memory: three small reads cost a fifth of a chunk.
        """
        if chunk in self._indices:
            return self._indices[chunk]
        shard, inner, _ = self.chunks[chunk]
        with self._shard(int(shard)) as opened:
            index = opened.read_index(int(inner), self._verify)
        with self._lock:
            if self._index_room >= index.nbytes:
                self._indices[int(chunk)] = index
                self._index_room -= index.nbytes
        return index

    def read_activations(self, chunks: Sequence[int]) -> list[Array]:
        """Read the activations of some chunks as float32 `[rows, d_in]` arrays."""
        manifest = self.manifest
        buffer = np.empty(int(self.chunks[:, 2].max()) * self.row_bytes, np.uint8)
        arrays = []
        for chunk in chunks:
            count = self.read_rows(chunk, buffer)
            used = buffer[: count * self.row_bytes]
            arrays.append(as_float32(used, manifest.dtype, manifest.d_in).copy())
        return arrays

    def close(self) -> None:
        """Close every file and end the processes that read."""
        processes, self._processes = self._processes, None
        if processes is not None:
            processes.close()
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
