"""Reusable scratch buffers.

An allocation of a MiB or more is mapped anew by the C library every time, and its page faults cost
more than the arithmetic done in it. At most a few buffers of a dtype are kept, the largest ones.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

# One encoding borrows up to three of a dtype at a time.
_KEPT = 3
_free: dict[torch.dtype, list[Tensor]] = {}
_lock = Lock()


def take(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of undefined content; hand it back with `give` when it is no longer used."""
    numel = math.prod(shape)
    with _lock:
        # Ascending by size: the first that is large enough, or the largest to be replaced.
        held = _free.get(dtype, [])
        fits = next((i for i, buffer in enumerate(held) if buffer.numel() >= numel), -1)
        buffer = held.pop(fits) if held else None
    if buffer is None or buffer.numel() < numel:
        # A buffer born in inference mode could not be written outside it.
        with torch.inference_mode(False):
            buffer = torch.empty(numel, dtype=dtype)
    return buffer[:numel].view(shape)


def give(tensor: Tensor) -> None:
    """Return the buffer behind a tensor from `take`."""
    with torch.inference_mode(False):
        buffer = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    with _lock:
        held = _free.setdefault(tensor.dtype, [])
        held.append(buffer)
        held.sort(key=Tensor.numel)
        del held[:-_KEPT]


@contextmanager
def borrowed(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Tensor]:
    """A tensor of undefined content within the context."""
    tensor = take(shape, dtype)
    try:
        yield tensor
    finally:
        give(tensor)
