"""Plain JSON from named tuples and back, checked against their annotations."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from lightsae.errors import LightsaeError

_T = TypeVar("_T")


def plain(value: Any) -> Any:
    """Named tuples as objects, tuples as lists, and null for numbers that are not finite.

    Example:
        >>> from lightsae.metrics.comparison.intervals import Interval
        >>> plain({"r2": Interval(0.5, math.nan, math.nan, 1)})
        {'r2': {'mean': 0.5, 'low': None, 'high': None, 'seeds': 1}}
    """
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, what: str, version: int) -> dict[str, Any]:
    """An object of a file that says its format.

    Args:
        path: The file.
        what: What messages call its content.
        version: The format that is read.

    Raises:
        LightsaeError: If it is missing or something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise LightsaeError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LightsaeError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.pop("format", None) != version:
        raise LightsaeError(f"{path} is no {what} of format {version}")
    return found


def typed(kind: type[_T], value: Any, where: str) -> _T:
    """What `plain` made of something of a type, checked.

    Args:
        kind: int, float (null is NaN), str, bool, tuple[...], dict[str, ...], X | None, or a named
            tuple of such.
        value: As `json.loads` gives it.
        where: What messages call it, such as the file.

    Raises:
        LightsaeError: If it is not of the type; names the key.

    Example:
        >>> from lightsae.metrics.comparison.intervals import Interval
        >>> typed(Interval, {"mean": 0.5, "low": 0.1, "high": 1, "seeds": 2}, "a.json")
        Interval(mean=0.5, low=0.1, high=1.0, seeds=2)
        >>> typed(Interval, {"mean": 0.5, "low": 0.1, "high": 1, "seeds": "2"}, "a.json")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: a.json: seeds is '2', expected int
    """
    return cast("_T", _typed(kind, value, where, ""))


def _typed(kind: Any, value: Any, where: str, key: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (inner,) = (each for each in arguments if each is not NoneType)
        return None if value is None else _typed(inner, value, where, key)
    if origin is tuple and isinstance(value, list):
        return _items(arguments, value, where, key)
    if origin is dict and isinstance(value, dict):
        return {name: _typed(arguments[1], each, where, _at(key, name))
                for name, each in value.items()}  # fmt: skip
    if hasattr(kind, "_fields") and isinstance(value, dict):
        return _named(kind, value, where, key)
    if kind is float and (value is None or type(value) in (int, float)):
        return _float(value, where, key)
    if type(value) is not kind:
        told = getattr(origin or kind, "__name__", str(kind))
        raise LightsaeError(f"{where}: {key or 'it'} is {_short(value)}, expected {told}")
    return value


def _items(kinds: tuple[Any, ...], value: list[Any], where: str, key: str) -> tuple[Any, ...]:
    if kinds[1:] == (...,):
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise LightsaeError(f"{where}: {key} has {len(value)} items, expected {len(kinds)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_typed(kind, each, where, _at(key, str(n))) for n, (kind, each) in pairs)


def _named(kind: Any, value: dict[str, Any], where: str, key: str) -> Any:
    hints = get_type_hints(kind)
    for name in kind._fields:
        if name not in value:
            raise LightsaeError(f"{where}: {_at(key, name)} is missing")
    unknown = sorted(set(value) - set(kind._fields))
    if unknown:
        raise LightsaeError(f"{where}: {_at(key, unknown[0])} is unknown")
    return kind(**{name: _typed(hints[name], value[name], where, _at(key, name))
                   for name in kind._fields})  # fmt: skip


def _float(value: float | None, where: str, key: str) -> float:
    try:
        number = math.nan if value is None else float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise LightsaeError(f"{where}: {key} is beyond float64, expected a finite number")
    return number


def _at(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
