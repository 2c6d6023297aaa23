"""Saving and loading a folder with sae.safetensors and sae.json."""

import json
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.files import replacing

FORMAT = 1
TENSORS, SETTINGS = "sae.safetensors", "sae.json"
_KEYS = {
    "d_in": int,
    "d_sae": int,
    "dtype": str,
    "selection": dict,
    "normalization": dict,
    "xxh3": str,
}
_DTYPES = ("float16", "bfloat16", "float32", "float64")
# Classes that a file can name, the first for files that name none; subclasses come later.
CLASSES: dict[str, type[Any]] = {}
BASE = "SparseAutoencoder"
# A provenance with the configuration of another library has a few KiB.
_MOST_SETTINGS = 16 << 20


def write(folder: Path, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Write both files, each as a whole; the settings carry the hash of the pair."""
    _require_finite(folder / TENSORS, tensors)
    content = serialize_tensors({name: t.detach().contiguous() for name, t in tensors.items()})
    described = {"format": FORMAT, **settings}
    described["xxh3"] = _pair_hash(described, content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / TENSORS) as temporary:
            temporary.write_bytes(content)
        with replacing(folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps(described, indent=2) + "\n")
    except OSError as error:
        raise LightsaeError(f"{folder} cannot be written: {error.strerror}") from error


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a folder.

    Raises:
        LightsaeError: If a file is missing or malformed, or they are not of one pair.
    """
    settings = read_settings(folder / SETTINGS)
    return settings, _tensors(folder / TENSORS, settings)


def require_promised(folder: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or dtypes than the settings promise."""
    have = {name: (*t.shape, str(t.dtype)) for name, t in sorted(found.items())}
    want = {name: (*t.shape, str(t.dtype)) for name, t in sorted(expected.items())}
    if have != want:
        raise LightsaeError(f"{folder / TENSORS} holds {have}, {SETTINGS} promises {want}")


def saved_class(wanted: type[Any], name: object, path: Path) -> type[Any]:
    """The class to read a folder as: what was saved, or a subclass of it that is wanted.

    Args:
        wanted: What it is read as.
        name: The name in the settings; None is a `SparseAutoencoder`.
        path: The settings, for messages.

    Raises:
        LightsaeError: If the name is unknown, or the class is not what is wanted.
    """
    base = CLASSES[BASE]
    saved = base if name is None else CLASSES.get(str(name))
    if saved is None:
        raise LightsaeError(f"{path}: unknown class {name!r}: {list(CLASSES)}")
    named = next((each for each in reversed(CLASSES.values()) if issubclass(wanted, each)), base)
    if saved is not named and wanted is not base:
        raise LightsaeError(f"{path}: holds a {saved.__name__}, not a {wanted.__name__}")
    return wanted if saved is named else saved


def read_settings(path: Path) -> dict[str, Any]:
    """Settings alone.

    Raises:
        LightsaeError: If the file is missing, malformed or of another format.
    """
    try:
        settings = json.loads(_bytes(path, most=_MOST_SETTINGS))
    except LightsaeError:
        raise
    except (ValueError, RecursionError) as error:
        raise LightsaeError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise LightsaeError(f"{path} is not an autoencoder of format {FORMAT}")
    for key, kind in _KEYS.items():
        if type(settings.get(key)) is not kind:
            raise LightsaeError(f"{path}: key {key!r} is missing or not of type {kind.__name__}")
    if not isinstance(settings.get("provenance", {}), dict):
        raise LightsaeError(f"{path}: key 'provenance' is not of type dict")
    if settings["dtype"] not in _DTYPES:
        raise LightsaeError(f"{path}: key 'dtype' is {settings['dtype']!r}, not one of {_DTYPES}")
    return settings


def _tensors(path: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    content = _bytes(path)
    if _pair_hash(settings, content) != settings["xxh3"]:
        raise LightsaeError(f"{path} and {SETTINGS} are not as they were saved (hash differs)")
    try:
        tensors = parse_tensors(content)
    except (SafetensorError, KeyError) as error:  # a KeyError is a dtype that torch has not
        raise LightsaeError(f"{path} is not a safetensors file: {error}") from error
    _require_finite(path, tensors)
    return tensors


def _require_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        narrow = tensor.is_floating_point() and tensor.element_size() == 1
        if not torch.isfinite(tensor.float() if narrow else tensor).all():
            raise LightsaeError(f"{path}: tensor {name!r} has NaN or infinite values")


def _pair_hash(settings: dict[str, Any], content: bytes) -> str:
    """Hash of the tensor file and of every setting beside the hash."""
    described = {name: value for name, value in settings.items() if name != "xxh3"}
    digest = xxhash.xxh3_64(content)
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()


def _bytes(path: Path, most: int | None = None) -> bytes:
    """A file, refused if it has more bytes than `most`."""
    try:
        with path.open("rb") as file:
            content = file.read() if most is None else file.read(most + 1)
    except OSError as error:
        raise LightsaeError(f"{path} cannot be read: {error.strerror}") from error
    if most is not None and len(content) > most:
        raise LightsaeError(f"{path} has more than {most} bytes, far more than any settings")
    return content
