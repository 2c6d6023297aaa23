"""Reading files of strangers: bounded sizes, no code of theirs, no path out of their folder.

Every function raises LightsaeError with one line that begins with the file.
"""

import json
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors.torch import load_file
from torch import Tensor

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.torch_files import read_torch_file

MAX_JSON_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 16 * 2**20
# Arrays of an .npz may be compressed, but weights hardly shrink.
MAX_GROWTH = 64


def file_in(folder: Path, name: str) -> Path:
    """A file of a folder, by a name that may come from a stranger.

    Links out of the folder are followed only from the cache of Hugging Face's hub, whose
    `snapshots/` hold links to its `blobs/`.

    Args:
        folder: The folder.
        name: Relative to it.

    Raises:
        LightsaeError: If there is no such file, or it lies outside of the folder.

    Example:
        >>> file_in(Path("sae"), "../weights.pt")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: sae: '../weights.pt' leaves the folder
    """
    if folder.is_file():
        raise LightsaeError(f"{folder} is a file, expected the folder that has {name}")
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not _inside(path, folder):
        raise LightsaeError(f"{folder}: {name!r} leaves the folder")
    if not path.is_file():
        raise LightsaeError(f"{path}: no such file")
    return path


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted; none that lies outside.

    Example:
        >>> files_in(Path("no_such_folder"), "*.pt")
        []
    """
    return [
        path for path in sorted(folder.glob(pattern)) if path.is_file() and _inside(path, folder)
    ]


def _inside(path: Path, folder: Path) -> bool:
    target = path.resolve()
    above = folder.resolve().parents
    blobs = [each.parent / "blobs" for each in above if each.name == "snapshots"]
    return any(target.is_relative_to(root.resolve()) for root in (folder, *blobs))


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Args:
        path: The file, of at most `MAX_JSON_BYTES`.

    Raises:
        LightsaeError: If it cannot be read, is too large or holds anything but one object.

    Example:
        >>> read_json(Path("cfg.json"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: cfg.json cannot be read: No such file or directory
    """
    return parse_json(read_bounded(path, MAX_JSON_BYTES), path)


def read_bounded(path: Path, limit: int) -> bytes:
    """All bytes of a file, which is no device or pipe: those may never end.

    Raises:
        LightsaeError: If it cannot be read, is no regular file or has more bytes than the limit.

    Example:
        >>> read_bounded(Path("/dev/zero"), 10)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: /dev/zero is no regular file
    """
    with _reading(path):
        if path.exists() and not path.is_file():
            raise LightsaeError(f"{path} is no regular file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise LightsaeError(f"{path} is larger than {limit} bytes")
        return content


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """The object that JSON text says; the path is named in errors.

    Example:
        >>> parse_json(b"[]", Path("cfg.json"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: cfg.json holds a list, expected a JSON object
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LightsaeError(f"{path} is not JSON: {reason(error)}") from error
    if not isinstance(found, dict):
        raise LightsaeError(f"{path} holds a {type(found).__name__}, expected a JSON object")
    return found


def peek_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file, empty where it cannot be read: for recognising a format.

    Example:
        >>> peek_json(Path("no_such.json"))
        {}
    """
    try:
        return read_json(file_in(path.parent, path.name))
    except LightsaeError:
        return {}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, on the CPU, mapped.

    Raises:
        LightsaeError: If it cannot be read, is truncated or claims a header of more than
            `MAX_HEADER_BYTES`.
    """
    with _reading(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
        claimed = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if claimed > min(MAX_HEADER_BYTES, size - 8):
            raise LightsaeError(
                f"{path} is no whole safetensors file: its header claims {claimed} of {size} bytes"
            )
        return load_file(path)


def read_torch(path: Path, skipped_bytes: int = 0) -> Any:
    """What torch.save wrote of tensors and plain values, on the CPU, mapped where it can be.

    Args:
        path: The file.
        skipped_bytes: Of something else that it begins with.

    Raises:
        LightsaeError: If it cannot be read, holds objects, or is compressed, as torch.save never
            writes.
    """
    require_stored(path)
    try:
        return read_torch_file(path, skipped_bytes)
    except LightsaeError as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error


def require_stored(path: Path) -> None:
    """Refuse a zip archive with compressed parts, whose size is not that of the file.

    Raises:
        LightsaeError: If there are any.
    """
    with _reading(path):
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size:
                    raise LightsaeError(f"{path} holds the compressed part {part.filename!r}")


def read_npz(path: Path) -> dict[str, Tensor]:
    """Every array of an .npz file as a tensor, without pickle.

    Raises:
        LightsaeError: If it cannot be read, an array holds objects, claims another size than its
            part has, or all together `MAX_GROWTH` times the file's.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        total, limit = sum(part.file_size for part in parts), MAX_GROWTH * path.stat().st_size
        if total > limit:
            raise LightsaeError(f"{path} would grow to {total} bytes, expected at most {limit}")
        for part in parts:
            _require_honest_array(archive, part, path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _require_honest_array(archive: zipfile.ZipFile, part: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a header that claims more numbers than its part holds: numpy would allocate them."""
    with archive.open(part) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        found = part.file_size - file.tell()
    if dtype.hasobject or found != prod(shape) * dtype.itemsize:
        raise LightsaeError(f"{path}: array {part.filename!r} is no plain array of {shape} {dtype}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What a damaged file makes other libraries raise, as one line."""
    try:
        yield
    except LightsaeError:
        raise
    except OSError as error:
        raise LightsaeError(f"{path} cannot be read: {error.strerror or reason(error)}") from error
    except Exception as error:  # parsers of damaged files raise whatever their parts do
        raise LightsaeError(f"{path} cannot be read: {reason(error)}") from error
