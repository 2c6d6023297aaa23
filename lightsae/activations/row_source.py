"""What a loader reads: rows in numbered chunks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from lightsae.activations.format import Manifest
from lightsae.activations.storage import Array

ReadRows = Callable[[int, Array], object]


class RowSource(Protocol):
    """Rows in numbered chunks, from shards or from a model that runs.

    Attributes:
        manifest: Width and dtype of the rows, and whether they have labels.
        index_ahead: Whether `read_index` can be asked before the activations are read.
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

    def reading(self, chunks: Array) -> AbstractContextManager[ReadRows]:
        """Get ready to read some chunks.

        Args:
            chunks: Int64 `[n]`, the order in which reading of them begins.

        Returns:
            A context; within it, a function that reads the activations of a chunk into a uint8
            buffer.
        """
        ...

    def read_index(self, chunk: int) -> Array:
        """Sample index, token index and label of a chunk.

        Returns:
            Int64 `[3, rows]`, or `[2, rows]` without labels.
        """
        ...
