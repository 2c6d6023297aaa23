"""What is known of a tensor, for as long as nobody changes it: the order of its pairs, a copy."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

T = TypeVar("T")
_known = WeakTensorKeyDictionary()


class Shared(Generic[T]):
    """Holds what is made at most once for each key.

    Example:
        >>> order = Shared()
        >>> order.get(8, lambda: "sorted"), order.get(8, lambda: "sorted again")
        ('sorted', 'sorted')
    """

    def __init__(self) -> None:
        self._made: dict[int, T] = {}

    def get(self, key: int, make: Callable[[], T]) -> T:
        """What was made for a key, or is made now."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def remember(tensor: Tensor, value: Any) -> None:
    """Tie a value to a tensor for as long as the tensor lives unchanged."""
    if not tensor.is_inference():
        _known[tensor] = (tensor._version, value)


def recall(tensor: Tensor) -> Any:
    """What was tied to this tensor as it is now, or None."""
    version, value = _known.get(tensor, (None, None))
    return value if version is not None and version == tensor._version else None


def shared_by(tensor: Tensor) -> Shared[Any]:
    """What belongs to this tensor as it is now."""
    shared: Shared[Any] | None = recall(tensor)
    if shared is None:
        shared = Shared()
        remember(tensor, shared)
    return shared


def narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in another dtype: the copy that was remembered with it, or one made now."""
    copy: Tensor | None = recall(tensor)
    fits = copy is not None and copy.dtype == dtype and copy.device == tensor.device
    return copy if fits and copy is not None else tensor.to(dtype)
