"""The rows of another layer, read at the places where the inputs are."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from lightsae.activations.loading.paired_rows.row_matching import require_same_rows
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.row_source import Piece, Place
from lightsae.activations.shards.reading.shard_set import ShardSet


class TargetRows:
    """A folder of shards whose rows are those of another, as a `RowSource` in the other's chunks.

    The rows lie in the same order, so that number n of one belongs to number n of the other. Where
    the chunks of both have the same rows, as those of two layers of one width have, what is asked
    for is read as it is. Otherwise the chunks that it lies in are read, at both ends of it
    possibly for some of their rows.

    Args:
        inputs: The other folder.
        targets: The folder.

    Attributes:
        manifest: That of the folder.
        index_ahead: An index can be read before the activations.

    Raises:
        LightsaeError: If the rows differ, or are of another model or other images.

    Example:
        >>> import tempfile, torch
        >>> from lightsae.activations import ShardWriter
        >>> folders = [tempfile.mkdtemp() for _ in range(2)]
        >>> for folder, width, rows in zip(folders, (2, 3), (4, 3)):
        ...     with ShardWriter(folder, Manifest(width, "float32"), chunk_rows=rows) as writer:
        ...         writer.write(torch.arange(6).float().outer(torch.ones(width)), torch.arange(6))
        >>> found = TargetRows(*map(ShardSet, folders))
        >>> out = np.empty(2 * found.row_bytes, np.uint8)
        >>> found.place([Piece(1, 0)], out)
        >>> found.stored_rows, out.view(np.float32)
        (array([4, 2]), array([4., 4., 4., 5., 5., 5.], dtype=float32))
    """

    def __init__(self, inputs: ShardSet, targets: ShardSet) -> None:
        require_same_rows(inputs, targets)
        self._inputs, self._targets = inputs, targets
        self.manifest: Manifest = targets.manifest
        self.index_ahead = True
        self._alike = np.array_equal(inputs.stored_rows, targets.stored_rows)
        self._starts, self._target_starts = (
            np.concatenate([[0], np.cumsum(each.stored_rows)]) for each in (inputs, targets)
        )

    @property
    def name(self) -> str:
        """The folder."""
        return self._targets.name

    @property
    def stored_rows(self) -> Array:
        """Int64 `[n_chunks]`, rows of each chunk of the inputs."""
        return self._inputs.stored_rows

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._targets.row_bytes

    def allocator(self, readers: int) -> Callable[[int], Array]:
        """See `RowSource.allocator`."""
        return self._targets.allocator(readers)

    def begin(self, pieces: Sequence[Piece], pool: Array) -> Callable[[], object] | None:
        """See `RowSource.begin`."""
        return self._targets.begin(self._located(pieces), pool)

    def reading(self, chunks: Array) -> AbstractContextManager[Place]:
        """Chunks can be read at any time, in any order and by several threads."""
        return nullcontext(self.place)

    def place(self, pieces: Sequence[Piece], pool: Array) -> None:
        """Read the rows that belong to chunks of the inputs to their places."""
        self._targets.place(self._located(pieces), pool)

    def read_index(self, chunk: int) -> Array:
        """That of the inputs, which is the same."""
        return self._inputs.read_index(chunk)

    def close(self) -> None:
        """Close the files of the folder."""
        self._targets.close()

    def _located(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Chunks of the inputs as chunks of the folder, each once."""
        if self._alike:
            return pieces
        targets: dict[int, Array] = {}
        for piece in pieces:
            start, end = self._starts[piece.chunk : piece.chunk + 2].tolist()
            places = piece.target
            if isinstance(places, int):
                places = np.arange(places, places + end - start, dtype=np.int32)
            self._spread(places, start, end, targets)
        return [Piece(chunk, targets[chunk]) for chunk in sorted(targets)]

    def _spread(self, places: Array, start: int, end: int, targets: dict[int, Array]) -> None:
        """Write the places of consecutive rows to those of the chunks that they lie in."""
        edges = self._target_starts
        first = int(np.searchsorted(edges, start, side="right")) - 1
        last = int(np.searchsorted(edges, end, side="left"))
        for chunk in range(first, last):
            low, high = int(edges[chunk]), int(edges[chunk + 1])
            own = targets.setdefault(chunk, np.full(high - low, -1, np.int32))
            begin, stop = max(low, start), min(high, end)
            own[begin - low : stop - low] = places[begin - start : stop - start]
