"""Stored dtypes, bytes and checksums."""

import os
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from lightsae.errors import LightsaeError

StoredDtype = Literal["float16", "bfloat16", "float32"]
Array = NDArray[Any]


class Storage(NamedTuple):
    """How one stored dtype lies on disk and in memory."""

    torch_dtype: torch.dtype
    disk_dtype: np.dtype[Any]
    bits: tuple[Any, Any]
    infinity: int


_STORAGE = {
    "float16": Storage(torch.float16, np.dtype("<f2"), (np.int16, np.uint16), 0x7C00),
    "bfloat16": Storage(torch.bfloat16, np.dtype("<u2"), (np.int16, np.uint16), 0x7F80),
    "float32": Storage(torch.float32, np.dtype("<f4"), (np.int32, np.uint32), 0x7F800000),
}


def storage(dtype: str) -> Storage:
    """Look up a stored dtype.

    Args:
        dtype: "float16", "bfloat16" or "float32".

    Returns:
        Its torch dtype, its dtype in HDF5 (bfloat16 lies there as uint16), the signed and the
        unsigned integer of its width, and the bits of its infinity.

    Raises:
        LightsaeError: If the name is none of the three.

    Example:
        >>> storage("bfloat16").disk_dtype
        dtype('uint16')
    """
    if dtype not in _STORAGE:
        raise LightsaeError(
            f"dtype is {dtype!r}, expected one of {', '.join(get_args(StoredDtype))}"
        )
    return _STORAGE[dtype]


def all_finite(raw: Array, dtype: str) -> bool:
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
    kind = storage(dtype)
    signed, unsigned = kind.bits
    negative_infinity = kind.infinity + (1 << (8 * kind.disk_dtype.itemsize - 1))
    largest = np.maximum.reduce
    return bool(
        largest(raw.view(signed)) < kind.infinity
        and largest(raw.view(unsigned)) < negative_infinity
    )


def as_float32(raw: Array, dtype: str, d_in: int) -> Array:
    """Read stored bytes as float32 rows.

    Args:
        raw: uint8 `[rows * d_in * itemsize]`.
        dtype: Stored dtype.
        d_in: Width of a row.

    Returns:
        Float32 `[rows, d_in]`.

    Example:
        >>> as_float32(np.array([0x3F80], np.uint16).view(np.uint8), "bfloat16", 1)
        array([[1.]], dtype=float32)
    """
    array: Array = rows_of(raw, d_in, dtype).float().numpy()
    return array


def rows_of(raw: Array, d_in: int, dtype: str) -> torch.Tensor:
    """Bytes as rows of a stored dtype, in the same memory.

    Args:
        raw: Contiguous uint8 `[rows * d_in * itemsize]`.
        d_in: Width of a row.
        dtype: Stored dtype.

    Returns:
        `[rows, d_in]`; it keeps `raw` alive.

    Example:
        >>> rows_of(np.array([0x3F80], np.uint16).view(np.uint8), 1, "bfloat16")
        tensor([[1.]], dtype=torch.bfloat16)
    """
    return torch.from_numpy(raw).view(storage(dtype).torch_dtype).view(-1, d_in)


def checksum(*buffers: Array | bytes) -> int:
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


def read_at(file: int, offset: int, out: Array) -> None:
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
