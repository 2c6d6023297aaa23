"""Values as JSON can hold them: numbers of numpy become Python's."""

import math
from typing import Any

import numpy as np

from lightsae.errors import LightsaeError


def plain(value: Any, where: str) -> Any:
    """The value of plain numbers, strings, lists and objects.

    Args:
        value: Any.
        where: What the message calls it.

    Raises:
        LightsaeError: If something in it is none of these, or no finite number.

    Example:
        >>> plain({"seeds": (np.int64(3), 4)}, "settings")
        {'seeds': [3, 4]}
        >>> plain({"seeds": {3, 4}}, "settings")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: settings holds a set, expected what JSON can hold
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {plain(key, where): plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise LightsaeError(f"{where} holds {value}, expected what JSON can hold")
    if value is None or isinstance(value, str | int | float):
        return value
    raise LightsaeError(f"{where} holds a {type(value).__name__}, expected what JSON can hold")
