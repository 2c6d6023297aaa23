"""A pool of row buffers, reused once no tensor refers to them."""

import weakref
from collections import deque
from collections.abc import Callable

from torch import Tensor

from lightsae.activations.shards.checked_read import aligned
from lightsae.activations.shards.dtypes import Array, rows_of, storage

_KEPT = 4


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

    def __init__(self, d_in: int, dtype: str, allocate: Callable[[int], Array] = aligned) -> None:
        self._d_in, self._dtype, self._allocate = d_in, dtype, allocate
        self._row_bytes = d_in * storage(dtype).disk_dtype.itemsize
        # Whoever drops the last tensor gives memory back, in whatever thread: single operations of
        # a deque need no lock.
        self._waiting: deque[Array] = deque(maxlen=_KEPT)

    def take(self, rows: int) -> Tensor:
        """Lend `[rows, d_in]` of the stored dtype."""
        size = rows * self._row_bytes
        slab = self._fitting(size)
        lent = slab[:size]
        weakref.finalize(lent, self._waiting.append, slab).atexit = False
        return rows_of(lent, self._d_in, self._dtype)

    def _fitting(self, size: int) -> Array:
        """The slab that came back last of those large enough, or a new one."""
        small: list[Array] = []
        try:
            while (slab := self._waiting.pop()).size < size:
                small.append(slab)
        except IndexError:
            slab = self._allocate(size)
        self._waiting.extend(reversed(small))
        return slab
