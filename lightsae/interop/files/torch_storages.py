"""The numbers of a torch.save file: a tensor is a view of a part of the zip archive."""

import zipfile
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.shown_values import shown

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(NamedTuple):
    """Numbers of a part.

    Attributes:
        numbers: One-dimensional.
    """

    numbers: Tensor


class Storages:
    """The storages of a file, each read once.

    Args:
        archive: The file.
        folder: Name before `/data/` in it.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._read: dict[tuple[str, str], Storage] = {}

    def named(self, key: Any) -> Storage:
        """The storage that a persistent id of torch.save names.

        Args:
            key: ("storage", class, name, location, numbers).

        Raises:
            LightsaeError: If there is none, or its part has another size.
        """
        match key:
            case ("storage", (_, str(kind)), str(name), _, int(count)) if kind in _DTYPES:
                pass
            case _:
                raise LightsaeError(f"no storage {shown(key)}")
        if (kind, name) not in self._read:
            content = self._archive.read(f"{self._folder}/data/{name}")
            self._read[kind, name] = Storage(_numbers(content, _DTYPES[kind]))
        if len(self._read[kind, name].numbers) != count:
            raise LightsaeError(f"storage {name} has no {count} numbers of {kind}")
        return self._read[kind, name]


def _numbers(content: bytes, dtype: torch.dtype) -> Tensor:
    if len(content) % dtype.itemsize:
        raise LightsaeError(f"{len(content)} bytes are no numbers of {dtype}")
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)


def rebuilt_tensor(arguments: Any) -> Tensor:
    """The tensor of (storage, offset, shape, strides, ...), as torch writes it.

    Raises:
        LightsaeError: If it does not lie within the storage.

    Example:
        >>> rebuilt_tensor((Storage(torch.arange(6.0)), 0, (2, 3), (3, 1), False, {}))
        tensor([[0., 1., 2.],
                [3., 4., 5.]])
    """
    match arguments:
        case (Storage(numbers), int(offset), tuple(shape), tuple(strides), *_):
            pass
        case _:
            raise LightsaeError("a tensor has no storage, offset, shape and strides")
    plain = all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    if not plain or len(shape) != len(strides) or prod(shape) > len(numbers):
        raise LightsaeError(
            f"a tensor of shape {shown(shape)} is no part of {len(numbers)} numbers"
        )
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if prod(shape) and last >= len(numbers):
        raise LightsaeError(
            f"a tensor of shape {shown(shape)} is no part of {len(numbers)} numbers"
        )
    return numbers.as_strided(shape, strides, offset)
