import sys
from queue import SimpleQueue
from threading import Thread

import pytest
from torch import Tensor

from lightsae.activations.loading.buffer_pool import Slabs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_memory_comes_back_when_the_last_tensor_is_gone(dtype: str) -> None:
    slabs = Slabs(4, dtype)
    rows = slabs.take(8)
    address = rows.data_ptr()
    part = rows[4:].view(-1)
    del rows
    other = slabs.take(8)
    assert other.data_ptr() != address
    del part
    assert slabs.take(8).data_ptr() == address


def test_a_slab_serves_fewer_rows_but_not_more() -> None:
    slabs = Slabs(4, "float32")
    address = slabs.take(8).data_ptr()
    assert slabs.take(3).shape == (3, 4)
    assert slabs.take(3).data_ptr() == address
    assert slabs.take(9).data_ptr() != address


def test_what_a_caller_hoarded_is_freed() -> None:
    slabs = Slabs(4, "float32")
    hoard = [slabs.take(8) for _ in range(20)]
    hoard.clear()
    assert len(slabs._waiting) == 4


def test_memory_comes_back_from_any_thread() -> None:
    slabs = Slabs(4, "float32")
    lent: SimpleQueue[Tensor | None] = SimpleQueue()

    def drop() -> None:
        while lent.get() is not None:
            pass

    droppers = [Thread(target=drop) for _ in range(3)]
    for dropper in droppers:
        dropper.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(3000):
            rows = slabs.take(1 + turn % 3)
            assert len(rows) == 1 + turn % 3
            lent.put(rows)
    finally:
        sys.setswitchinterval(interval)
        for _ in droppers:
            lent.put(None)
    for dropper in droppers:
        dropper.join()
