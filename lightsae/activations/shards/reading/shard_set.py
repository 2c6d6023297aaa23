"""All shards of a folder, read chunk by chunk in this process or by others."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock, local
from typing import Any

import numpy as np

from lightsae.activations.shards.checked_read import aligned, put_rows
from lightsae.activations.shards.dtypes import Array, as_float32, storage
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest
from lightsae.activations.shards.reading.reader import Shard
from lightsae.activations.shards.reading.reader_processes import Located, ReaderProcesses
from lightsae.activations.shards.reading.row_source import Piece, Place
from lightsae.activations.shards.running_moments import Moments
from lightsae.errors import LightsaeError
from lightsae.plural import counted

_INDEX_BYTES = 64 << 20
# Starting a process takes as long as reading about so much.
_WORTH_PROCESSES = 256 << 20


class ShardSet:
    """All shards of a folder as one list of chunks.

    Every shard's structure is checked on construction; files are opened when needed and at most
    `max_open` stay open. Several threads may read. Copies and pickles open their own.

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
                f"{folder}: is incomplete ({counted(self.manifest.rows, 'row')} so far): "
                "run the command that began it again"
            )
        self._verify, self._max_open = verify, max_open
        self._begin_closed()
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

    def _begin_closed(self) -> None:
        """Nothing is open or read yet."""
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._users: Counter[int] = Counter()
        self._lock = Lock()
        self._scratch = local()
        self._processes: ReaderProcesses | None = None
        self._indices: dict[int, Array] = {}
        self._index_room = _INDEX_BYTES

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: what is known of the shards, but no file and no process."""
        names = ("folder", "index_ahead", "manifest", "_verify", "_max_open")
        known = (*names, "chunk_rows", "chunks", "_scanned")
        return {name: getattr(self, name) for name in known}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with nothing open."""
        self.__dict__.update(state)
        self._begin_closed()

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
