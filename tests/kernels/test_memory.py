"""Bounds on the activations of a batch."""

from typing import Any

import pytest
from lightsae_kernels import ArgumentError
from lightsae_kernels.memory import bounded, memory


@pytest.mark.parametrize("block_bytes", [0, -1, float("inf"), True])
def test_a_block_of_no_size_is_refused(block_bytes: Any) -> None:
    with pytest.raises(ArgumentError, match="block_bytes must be a positive integer, got"):
        bounded(block_bytes=block_bytes).__enter__()


def test_the_bounds_hold_until_the_block_ends() -> None:
    before = memory()
    with pytest.raises(KeyError), bounded(block_bytes=1, recompute=True):
        assert memory() != before
        raise KeyError
    assert memory() == before
