"""How much memory the activations of a batch may take on a GPU.

docs/kernels.md has the formula. A whole B x N tensor exists only with 2-byte elements, only for
a regularizer, and never with `recompute`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lightsae_kernels.argument_checks import ArgumentError


@dataclass(frozen=True)
class Memory:
    """Bounds on the activations.

    Attributes:
        block_bytes: Size of a row block of activations that is not kept.
        recompute: Never keep a whole batch of activations; pay another product instead.
    """

    block_bytes: int = 256 << 20
    recompute: bool = False


_current = Memory()


def memory() -> Memory:
    """The bounds in force."""
    return _current


@contextmanager
def bounded(*, block_bytes: int | None = None, recompute: bool | None = None) -> Iterator[Memory]:
    """Change the bounds of this process within a block; backward passes run in it see them too.

    Args:
        block_bytes: See `Memory`; None leaves it as it is.
        recompute: See `Memory`; None leaves it as it is.

    Raises:
        ArgumentError: A ValueError; block_bytes is not a positive integer.

    Example:
        >>> with bounded(recompute=True) as bounds:
        ...     bounds.recompute
        True
        >>> memory().recompute
        False
    """
    global _current
    before = _current
    if block_bytes is not None:
        if type(block_bytes) is not int or block_bytes < 1:
            raise ArgumentError(f"block_bytes must be a positive integer, got {block_bytes!r}")
        _current = replace(_current, block_bytes=block_bytes)
    if recompute is not None:
        _current = replace(_current, recompute=recompute)
    try:
        yield _current
    finally:
        _current = before


def rows_in_block(B: int, N: int, itemsize: int, tile: int) -> int:
    """Rows of activations that exist at a time: whole tiles, at least one.

    Example:
        >>> rows_in_block(16384, 65536, 2, 128)
        2048
    """
    rows = memory().block_bytes // (N * itemsize)
    return min(B, max(tile, rows // tile * tile))
