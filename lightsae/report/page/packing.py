"""Arrays as text within HTML: little-endian, aligned, one gzip stream in base64."""

import base64
import gzip
import json
from typing import Any

import numpy as np

from lightsae.activations.shards.dtypes import Array

# Kinds that a browser has a typed array for.
_KINDS = {"uint8", "uint16", "int32", "uint32", "float32", "float64"}
_ALIGNMENT = 8
# `<` opens tags and comments in a script; U+2028 and U+2029 end lines of scripts in old browsers.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028",
            "\u2029": "\\u2029"}  # fmt: skip


class ArrayPack:
    """Collects arrays by name.

    Example:
        >>> pack = ArrayPack()
        >>> pack.add("firings", np.array([3, 0]))
        >>> pack.index
        {'firings': {'kind': 'uint32', 'shape': [2], 'offset': 0}}
    """

    def __init__(self) -> None:
        self.index: dict[str, dict[str, Any]] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, name: str, array: Array) -> None:
        """Add an array; integers and floats are stored as narrow as the browser can read them."""
        array = _narrow(np.ascontiguousarray(array))
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self.index[name] = {
            "kind": array.dtype.name, "shape": list(array.shape), "offset": self._size,
        }  # fmt: skip
        content += bytes(-len(content) % _ALIGNMENT)
        self._parts.append(content)
        self._size += len(content)

    def text(self) -> str:
        """All arrays, base64 of one gzip stream."""
        packed = gzip.compress(b"".join(self._parts), compresslevel=6, mtime=0)
        return base64.b64encode(packed).decode()


def _narrow(array: Array) -> Array:
    """The narrowest kind that holds every value."""
    if array.dtype.name in _KINDS - {"float64", "int32", "uint32"}:
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if high >= 1 << (32 if low >= 0 else 31) or low < -(1 << 31):
        return array.astype(np.float64)  # whole numbers to 2^53
    if low >= 0:
        return array.astype(np.uint16 if high < 1 << 16 and array.ndim > 1 else np.uint32)
    return array.astype(np.int32)


def json_text(value: Any) -> str:
    r"""JSON that may stand within a script element: no character of it ends or opens a tag.

    Example:
        >>> json_text({"class": "</script>"})
        '{"class": "\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text
