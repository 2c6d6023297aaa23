"""One reusable scratch buffer per dtype.

An allocation of tens of MiB is mapped anew by the C library every time, and its page faults cost
more than the arithmetic done in it.
"""

import math
from threading import Lock

import torch
from torch import Tensor

_free: dict[torch.dtype, Tensor] = {}
_lock = Lock()


def take(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of undefined content; hand it back with `give` when it is no longer used."""
    numel = math.prod(shape)
    with _lock:
        buffer = _free.pop(dtype, None)
    if buffer is None or buffer.numel() < numel:
        # A buffer born in inference mode could not be written outside it.
        with torch.inference_mode(False):
            buffer = torch.empty(numel, dtype=dtype)
    return buffer[:numel].view(shape)


def give(tensor: Tensor) -> None:
    """Return the buffer behind a tensor from `take`; the larger of two is kept."""
    with torch.inference_mode(False):
        buffer = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    with _lock:
        held = _free.get(tensor.dtype)
        if held is None or held.numel() < buffer.numel():
            _free[tensor.dtype] = buffer
