"""Memory for rows, used again once nothing refers to what lay in it."""

import weakref
from collections.abc import Callable

import numpy as np
from torch import Tensor

from lightsae.activations.storage import Array, rows_of, storage

_KEPT = 4


def pageable(size: int) -> Array:
    """Uninitialised bytes.

    Example:
        >>> pageable(3).shape
        (3,)
    """
    return np.empty(size, np.uint8)


class Slabs:
    """Lends uninitialised rows; memory comes back by itself when the last tensor on it is gone.

    Touching new memory for the first time costs more than copying rows into it. At most four
    slabs wait to be used again, so that what a caller hoarded for a while is freed.

    Args:
        d_in: Width of a row.
        dtype: Stored dtype.
        allocate: Makes uint8 `[size]`.

    Example:
        >>> slabs = Slabs(2, "float16")
        >>> rows = slabs.take(3)
        >>> address = rows.data_ptr()
        >>> part = rows[1:]
        >>> del rows
        >>> slabs.take(3).data_ptr() == address  # `part` still needs it
        False
        >>> del part
        >>> address in [slabs.take(3).data_ptr() for _ in range(2)]
        True
    """

    def __init__(self, d_in: int, dtype: str, allocate: Callable[[int], Array] = pageable) -> None:
        self._d_in, self._dtype, self._allocate = d_in, dtype, allocate
        self._row_bytes = d_in * storage(dtype).disk_dtype.itemsize
        self._waiting: list[Array] = []

    def take(self, rows: int) -> Tensor:
        """Lend `[rows, d_in]` of the stored dtype."""
        size = rows * self._row_bytes
        fitting = [number for number, slab in enumerate(self._waiting) if slab.size >= size]
        slab = self._waiting.pop(fitting[-1]) if fitting else self._allocate(size)
        lent = slab[:size]
        weakref.finalize(lent, self._give_back, slab).atexit = False
        return rows_of(lent, self._d_in, self._dtype)

    def _give_back(self, slab: Array) -> None:
        """Keep a slab that nothing refers to any more, and of those waiting only the last."""
        self._waiting = [*self._waiting, slab][-_KEPT:]
