"""What a file of a stranger holds, in a few words of one line."""

import reprlib
from collections.abc import Collection
from typing import Any

from torch import Tensor


def shown(value: Any) -> str:
    """What a file has in the place of something else, in a few words of one line.

    Example:
        >>> shown(Tensor([[0, 0], [0, 0]]))
        'tensor([[0., 0.], [0., 0.]])'
    """
    words = " ".join(_Brief().repr(value).split())
    return words if len(words) <= 80 else f"{words[:77]}..."


class _Brief(reprlib.Repr):
    """Values of a few levels: written out, a pickle of 40 nested pairs is longer than memory."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring = 3, 200

    def repr_int(self, value: int, level: int) -> str:
        """Python refuses to write numbers of more than 4300 digits."""
        bits = value.bit_length()
        return repr(value) if bits < 256 else f"<an int of {bits} bits>"

    def repr_instance(self, value: Any, level: int) -> str:
        """A tensor is written out, of a container the kind alone."""
        written = isinstance(value, Tensor) or not isinstance(value, Collection)
        return repr(value) if written else f"<{type(value).__name__}>"
