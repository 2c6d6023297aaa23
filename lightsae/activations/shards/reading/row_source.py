"""The protocol of what a loader reads: rows in numbered chunks."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest


class Piece(NamedTuple):
    """A chunk, and where its rows belong.

    Attributes:
        chunk: Its number.
        target: The place of its first row, if the others follow it; otherwise integer `[rows]`,
            the place of each, -1 for nowhere.
    """

    chunk: int
    target: int | Array


Place = Callable[[Sequence[Piece], Array], object]


class RowSource(Protocol):
    """Rows in numbered chunks, from shards or from a model that runs.

    Attributes:
        manifest: Width and dtype of the rows, and whether they have labels.
        index_ahead: Whether labels are known before the activations are read; samples always are.
    """

    manifest: Manifest
    index_ahead: bool

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def stored_rows(self) -> Array:
        """Int64 `[n_chunks]`, rows of each chunk."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of activations."""
        ...

    def allocator(self, readers: int) -> Callable[[int], Array]:
        """What makes memory, uint8 `[size]`, that so many readers fill fastest."""
        ...

    def begin(self, pieces: Sequence[Piece], pool: Array) -> Callable[[], object] | None:
        """Let other processes read chunks to their places, if they can write to `pool`.

        Returns:
            Waits until that is done and raises what went wrong; None if they cannot.
        """
        ...

    def reading(self, chunks: Array) -> AbstractContextManager[Place]:
        """Get ready to read some chunks.

        Args:
            chunks: Int64 `[n]`, the order in which reading of them begins.

        Returns:
            A context; within it, a function that reads the activations of chunks to their places
            among the rows of a uint8 buffer.
        """
        ...

    def read_index(self, chunk: int) -> Array:
        """Sample index, token index and label of a chunk.

        Returns:
            Int64 `[3, rows]`, or `[2, rows]` without labels.
        """
        ...
