"""Something made from an index tensor when first asked for, shared by all who use the tensor."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

T = TypeVar("T")
_shared = WeakTensorKeyDictionary()


class Shared(Generic[T]):
    """Holds what is made at most once.

    Example:
        >>> order = Shared()
        >>> order.get(lambda: "sorted"), order.get(lambda: "sorted again")
        ('sorted', 'sorted')
    """

    def __init__(self) -> None:
        self._made: T | None = None

    def get(self, make: Callable[[], T]) -> T:
        """What was made, or is made now."""
        if self._made is None:
            self._made = make()
        return self._made


def share(tensor: Tensor, shared: Shared[Any]) -> None:
    """Tie it to a tensor for as long as the tensor lives unchanged."""
    if not tensor.is_inference():
        _shared[tensor] = (tensor._version, shared)


def shared_by(tensor: Tensor) -> Shared[Any]:
    """What belongs to this tensor as it is now."""
    known: tuple[int, Shared[Any]] | None = _shared.get(tensor)
    if known is not None and known[0] == tensor._version:
        return known[1]
    shared: Shared[Any] = Shared()
    share(tensor, shared)
    return shared
