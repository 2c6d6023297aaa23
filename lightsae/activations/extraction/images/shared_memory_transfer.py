"""Passing batches from worker processes to the extraction in shared memory files.

torch would put them into /dev/shm, of which a container has 64 MB by default: a batch that does not
fit is lost in a thread of the worker, and whoever waits for it waits for ever. A memory file
(memfd) has no such limit.
"""

import mmap
import os
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.extraction.models import Inputs

# A file is worth it from here on; what is smaller goes through the pipe.
_FILE_BYTES = 1 << 16


def packed(inputs: Inputs) -> Any:
    """What arrives as the same tensors in another process; itself where there are no memory files.

    Args:
        inputs: A batch of images, or keyword arguments of the model.

    Returns:
        What is pickled instead. It is written here, so that an error is raised here.

    Raises:
        OSError: If there is no memory.

    Example:
        >>> import pickle
        >>> from multiprocessing.reduction import ForkingPickler
        >>> pickle.loads(ForkingPickler.dumps(packed(torch.arange(3))))
        tensor([0, 1, 2])
    """
    if not hasattr(os, "memfd_create"):
        return inputs
    if isinstance(inputs, Tensor):
        return _Packed(inputs)
    return {name: _Packed(tensor) for name, tensor in inputs.items()}


class _Packed:
    """A tensor as bytes, or as the descriptor of a file of them; unpickled it is a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._dtype, self._shape = tensor.dtype, tensor.shape
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        if raw.nbytes < _FILE_BYTES:
            self._data: Any = bytearray(raw)
            return
        file = os.memfd_create("images")
        try:
            os.posix_fallocate(file, 0, raw.nbytes)
            np.copyto(np.frombuffer(mmap.mmap(file, raw.nbytes), np.uint8), raw)
            self._data = DupFd(file)
        finally:
            os.close(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self._data, self._dtype, self._shape)


def _unpacked(data: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """The tensor, in the same memory."""
    if not data:
        return torch.empty(shape, dtype=dtype)
    if not isinstance(data, bytearray):
        file = data.detach()
        try:
            data = mmap.mmap(file, os.fstat(file).st_size)
        finally:
            os.close(file)
    return torch.frombuffer(data, dtype=dtype).view(shape)
