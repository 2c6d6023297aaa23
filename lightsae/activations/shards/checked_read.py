"""Read the bytes of chunks, check their hashes, scan for NaN, copy rows; numpy and xxhash only.

Run by its path, this file is the program of a reader process: whoever imported torch first would
wait for seconds and hold a quarter of a gigabyte.
"""

import marshal
import mmap
import os
import sys
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

_Array = NDArray[Any]
_PAGE = 4096
_MAX_OPEN = 64

# The signed and the unsigned integer of each dtype's width, and the bits of its infinity.
_BITS: dict[str, tuple[Any, Any, int]] = {
    "float16": (np.int16, np.uint16, 0x7C00),
    "bfloat16": (np.int16, np.uint16, 0x7F80),
    "float32": (np.int32, np.uint32, 0x7F800000),
}


def all_finite(raw: _Array, dtype: str) -> bool:
    """Whether no value of a buffer is NaN or infinite, by integer comparison of its bits.

    A value is not finite when its exponent is all ones: as a signed integer it is then at least
    +inf, or as an unsigned one at least -inf. Two maxima over bytes in cache cost less than one
    float32 sum, and are exact.

    Args:
        raw: Contiguous bytes of values, uint8 `[n]`.
        dtype: Their stored dtype.

    Returns:
        True if all are finite.

    Example:
        >>> all_finite(np.array([1, -65504], np.float16).view(np.uint8), "float16")
        True
        >>> all_finite(np.array([1, -np.inf], np.float16).view(np.uint8), "float16")
        False
    """
    if raw.size == 0:
        return True
    signed, unsigned, infinity = _BITS[dtype]
    negative_infinity = infinity + (1 << (8 * np.dtype(signed).itemsize - 1))
    largest = np.maximum.reduce
    return bool(
        largest(raw.view(signed)) < infinity and largest(raw.view(unsigned)) < negative_infinity
    )


def checksum(*buffers: _Array | bytes) -> int:
    """xxh3 (64 bits) of buffers, one after the other.

    Example:
        >>> checksum(b"ab") == checksum(b"a", b"b")
        True
    """
    if len(buffers) == 1 and isinstance(buffers[0], np.ndarray):
        return xxhash.xxh3_64_intdigest(buffers[0].data)
    state = xxhash.xxh3_64()
    for buffer in buffers:
        state.update(buffer if isinstance(buffer, bytes) else buffer.data)
    return state.intdigest()


def read_at(file: int, offset: int, out: _Array) -> None:
    """Fill a buffer from a place in a file; other threads run meanwhile.

    Args:
        file: Descriptor of an open file.
        offset: Where to begin, in bytes.
        out: Contiguous uint8 `[n]`.

    Raises:
        OSError: If the file ends before.

    Example:
        >>> import tempfile
        >>> out = np.empty(2, np.uint8)
        >>> with tempfile.TemporaryFile(buffering=0) as file:
        ...     _ = file.write(b"abcd")
        ...     read_at(file.fileno(), 1, out)
        >>> out.tobytes()
        b'bc'
    """
    filled = 0
    while filled < out.size:
        count = os.preadv(file, [out[filled:].data], offset + filled)
        if count == 0:
            raise OSError(f"the file ends {out.size - filled} bytes before")
        filled += count


def aligned(size: int) -> _Array:
    """Uninitialised bytes from the start of a page on.

    Some processors copy from a file several times slower to a place that lies a few bytes behind
    that of the source within its page, as memory straight from the allocator often does.

    Example:
        >>> aligned(3).shape
        (3,)
    """
    whole = np.empty(size + _PAGE, np.uint8)
    start = -whole.ctypes.data % _PAGE
    return whole[start : start + size]


def put_rows(raw: _Array, targets: _Array, pool: _Array) -> None:
    """Copy rows to their places.

    Args:
        raw: uint8 `[n * row_bytes]`.
        targets: Integer `[n]`, at which row of the pool each belongs; -1 for nowhere.
        pool: uint8, whole rows.

    Example:
        >>> pool = np.zeros(4, np.uint8)
        >>> put_rows(np.array([1, 2, 3], np.uint8), np.array([3, -1, 0]), pool)
        >>> pool.tolist()
        [3, 0, 0, 1]
    """
    row_bytes = raw.size // len(targets)
    source, rows = raw.reshape(-1, row_bytes), pool.reshape(-1, row_bytes)
    wanted = targets >= 0
    if wanted.all():
        rows[targets] = source
    else:
        rows[targets[wanted]] = source[wanted]


class _Server:
    """Does what a parent process asks for.

    Args:
        parent: Its process number.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._pools: dict[int, _Array] = {}
        self._files: OrderedDict[str, int] = OrderedDict()
        self._scratch = aligned(0)

    def answer(self, pools: list[tuple[int, int, int]], job: tuple[Any, ...]) -> list[int]:
        """Read the pieces of a job.

        Args:
            pools: Number, the parent's descriptor and bytes of each pool that it has.
            job: Number of the pool, bytes of a row, dtype, the pieces (file, offset, bytes,
                checksum or None, whether known to be finite, first row or -1), and int32 targets
                of the rows of those at -1.

        Returns:
            The pieces that are not what was written, or cannot be read.
        """
        number, row_bytes, dtype, pieces, targets = job
        pool = self._pool(number, pools)
        places, used, failed = np.frombuffer(targets, np.int32), 0, []
        for piece, (path, offset, size, expected, scanned, start) in enumerate(pieces):
            out = self._room(size) if start < 0 else pool[start * row_bytes :][:size]
            if not self._filled(out, path, offset, expected, None if scanned else dtype):
                failed.append(piece)
            elif start < 0:
                put_rows(out, places[used:][: size // row_bytes], pool)
            used += size // row_bytes if start < 0 else 0
        return failed

    def _pool(self, number: int, pools: list[tuple[int, int, int]]) -> _Array:
        """Memory of the parent, by its number; what it no longer has is let go."""
        there = {known: (file, size) for known, file, size in pools}
        for known in [known for known in self._pools if known not in there]:
            del self._pools[known]
        if number not in self._pools:
            file, size = there[number]
            with open(f"/proc/{self._parent}/fd/{file}", "r+b", buffering=0) as memory:
                self._pools[number] = np.frombuffer(mmap.mmap(memory.fileno(), size), np.uint8)
        return self._pools[number]

    def _room(self, size: int) -> _Array:
        """Memory that is used again for each chunk, and so stays in cache."""
        if self._scratch.size < size:
            self._scratch = aligned(size)
        return self._scratch[:size]

    def _filled(
        self, out: _Array, path: str, offset: int, expected: int | None, dtype: str | None
    ) -> bool:
        """Read a piece; whether it has the checksum and is finite in a dtype, as far as asked."""
        try:
            read_at(self._file(path), offset, out)
        except OSError:
            return False
        known = expected is None or checksum(out) == expected
        return known and (dtype is None or all_finite(out, dtype))

    def _file(self, path: str) -> int:
        """An open file; those used longest ago are closed."""
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDONLY)
            if len(self._files) > _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(path)
        return self._files[path]


def serve(parent: int, jobs: BinaryIO, answers: BinaryIO) -> None:
    """Answer jobs until there are no more, or None comes.

    Args:
        parent: Process number of whoever sends them.
        jobs: Where they come from.
        answers: Where the answers go.
    """
    server = _Server(parent)
    while True:
        try:
            job = marshal.load(jobs)
        except EOFError:
            return
        if job is None:
            return
        marshal.dump(server.answer(*job), answers)
        answers.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
