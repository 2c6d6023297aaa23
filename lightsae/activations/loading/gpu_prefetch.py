"""Prefetching: batches are copied to the GPU before they are needed."""

import weakref
from collections import deque
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightsae.activations.loading.activation_batch import ActivationBatch
from lightsae.activations.shards.dtypes import Array


class Event(Protocol):
    """A point in the work of a device."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""


class Copy(NamedTuple):
    """A batch on its way to a device.

    Attributes:
        source: The batch in pinned memory, which is lent again as soon as nothing refers to it.
        batch: The batch on the device.
        done: When it has arrived.
    """

    source: ActivationBatch
    batch: ActivationBatch
    done: Event


class Copies(Protocol):
    """Copies batches to a device, beside what else runs on it."""

    def allocate(self, size: int) -> Array:
        """Memory that it copies from, uint8 `[size]`."""

    def register(self, memory: Array) -> Array:
        """Let it copy from memory of another kind as fast."""

    def begin(self, source: ActivationBatch) -> Copy:
        """Begin to copy a batch."""

    def hand_over(self, copy: Copy) -> ActivationBatch:
        """Let what the caller does on the device from now on wait for the copy."""


class CudaCopies:
    """Copies in a stream of their own.

    Args:
        device: The GPU.
        dtype: Dtype of the activations there; None for the stored one.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self._device, self._dtype = device, dtype
        self._stream = torch.cuda.Stream(device)

    def allocate(self, size: int) -> Array:
        """Pinned memory."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()

    def register(self, memory: Array) -> Array:
        """Pin memory that processes share; where that fails, batches are copied once more."""
        runtime, address = torch.cuda.cudart(), memory.ctypes.data
        if int(runtime.cudaHostRegister(address, memory.nbytes, 0)) == 0:
            weakref.finalize(memory, runtime.cudaHostUnregister, address).atexit = False
        return memory

    def begin(self, source: ActivationBatch) -> Copy:
        """Begin to copy a batch, the rows of layers as they are stored: the GPU widens them."""
        with torch.cuda.stream(self._stream):
            batch = ActivationBatch(*map(self._copied, source))  # type: ignore[arg-type]
            if self._dtype is not None:
                batch = batch.with_rows_in(self._dtype)
            return Copy(source, batch, self._stream.record_event())

    def _copied(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        return pinned.to(self._device, non_blocking=True)

    def hand_over(self, copy: Copy) -> ActivationBatch:
        """Let the current stream wait for the copy; its memory stays as long as that needs it."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copy.done)  # type: ignore[arg-type]
        for tensor in copy.batch:
            if tensor is not None:
                tensor.record_stream(stream)
        return copy.batch


def ahead(
    batches: Generator[ActivationBatch, None, None], copies: Copies
) -> Generator[ActivationBatch, None, None]:
    """Deliver each batch on the device, while the one after it is copied.

    Args:
        batches: Batches in host memory.
        copies: Where they go.

    Yields:
        The batches on the device. A source is let go when its copy has arrived, not before: its
        memory is filled anew at once. An error comes after the batches before it.
    """
    under_way: deque[Copy] = deque()
    failure: Exception | None = None
    with closing(batches):
        try:
            under_way.extend(copies.begin(source) for source in islice(batches, 1))
            while under_way:
                try:
                    under_way.extend(copies.begin(source) for source in islice(batches, 1))
                except Exception as error:
                    failure = error
                yield copies.hand_over(under_way[0])
                under_way[0].done.synchronize()
                under_way.popleft()
            if failure is not None:
                raise failure
        finally:
            for copy in under_way:
                copy.done.synchronize()
