"""A factory of optimizers or schedules that `deepcopy` shares instead of copying."""

from collections.abc import Callable
from typing import Any


class SharedFactory:
    """Calls a function; copies of it are itself.

    What a command line gives as a function may hold all it has parsed, the data module and its
    open files included, none of which a copy of a module is of.

    Args:
        make: The function.

    Example:
        >>> from copy import deepcopy
        >>> factory = SharedFactory(len)
        >>> factory([1, 2]), deepcopy(factory) is factory
        (2, True)
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __call__(self, argument: Any) -> Any:
        """What the function makes."""
        return self.make(argument)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedFactory":
        return self
