"""Stored dtypes: float16, bfloat16 and float32 as numpy and torch see them.

torch is imported where a function needs it: whoever looks at a folder only does not wait for it.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from lightsae.errors import LightsaeError

if TYPE_CHECKING:
    import torch

StoredDtype = Literal["float16", "bfloat16", "float32"]
Array = NDArray[Any]


class Storage(NamedTuple):
    """How one stored dtype lies on disk and in memory."""

    name: str
    disk_dtype: np.dtype[Any]

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The dtype in memory."""
        import torch

        dtype: torch.dtype = getattr(torch, self.name)
        return dtype


_STORAGE = {
    "float16": Storage("float16", np.dtype("<f2")),
    "bfloat16": Storage("bfloat16", np.dtype("<u2")),
    "float32": Storage("float32", np.dtype("<f4")),
}


def storage(dtype: str) -> Storage:
    """Look up a stored dtype.

    Args:
        dtype: "float16", "bfloat16" or "float32".

    Returns:
        Its torch dtype and its dtype in HDF5, where bfloat16 lies as uint16.

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


def rows_of(raw: Array, d_in: int, dtype: str) -> "torch.Tensor":
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
    import torch

    return torch.from_numpy(raw).view(storage(dtype).torch_dtype).view(-1, d_in)
