"""Folders that saev cached: `metadata.json` and float32 `[images, layers, tokens, d]` files."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from lightsae.activations.shards.dtypes import Array
from lightsae.activations.tools.foreign_activations import Foreign
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError

_Kind = TypeVar("_Kind")
_KINDS = {
    int: "a whole number", str: "a string", bool: "true or false", list: "a list",
    dict: "an object",
}  # fmt: skip
_FLOAT32_BYTES = 4
_IMAGES = ("n_examples", "n_ex", "n_imgs")
_PATCHES = ("content_tokens_per_example", "patches_per_ex", "n_patches_per_img")


class _Shard(NamedTuple):
    """A file: the images in it come first, room that was never filled may follow."""

    path: Path
    images: int

    def rows(self, image_shape: tuple[int, int, int], place: int, low: int, high: int) -> Array:
        """A layer of some of its images."""
        shape = (self.images, *image_shape)
        return np.array(np.memmap(self.path, np.float32, "r", shape=shape)[low:high, place])


def open_saev(source: Path, layer: int | None) -> Foreign:
    """Open a folder of saev: of version 0.1.0, or of its protocol of shards up to 2.1.

    Args:
        source: The folder.
        layer: Number of the layer, where there are several.

    Raises:
        LightsaeError: If it is not whole, naming the file and key.
    """
    where = source / "metadata.json"
    about = _json(where, dict)
    layers = _field(about, where, list, "layers")
    if not all(type(number) is int for number in layers):
        raise LightsaeError(f"{where}: layers is {layers}, expected whole numbers")
    if layer not in layers and not (layer is None and len(layers) == 1):
        raise LightsaeError(f"{source}: layer is {layer}, it has the layers {layers}")
    place = 0 if layer is None else layers.index(layer)
    if about.get("dtype", "float32") != "float32":
        raise LightsaeError(f"{where}: dtype is {about['dtype']!r}, expected 'float32'")
    width = _number(about, where, 1, "d_model", "d_vit")
    cls_token = _field(about, where, bool, "cls_token")
    tokens = _number(about, where, 1, *_PATCHES) + cls_token
    image_shape = (len(layers), tokens, width)
    shards = _shards(source, about, image_shape)
    ends = np.cumsum([0, *(shard.images for shard in shards)]).tolist()

    def read(part: slice) -> torch.Tensor:
        parts = []
        for shard, first in zip(shards, ends, strict=False):
            low, high = max(part.start - first, 0), min(part.stop - first, shard.images)
            if low < high:
                parts.append(shard.rows(image_shape, place, low, high))
        return torch.from_numpy(np.concatenate(parts))

    model = str(about.get("ckpt", about.get("vit_ckpt", "")))
    kind = "all" if cls_token else "patch"
    return Foreign((ends[-1], tokens, width), read, model, str(layers[place]), kind)


def _shards(source: Path, about: dict[str, Any], image_shape: tuple[int, int, int]) -> list[_Shard]:
    """Its files: those that it lists, or else those that its writer filled."""
    listing = source / "shards.json"
    room = None if listing.is_file() else _room(about, source / "metadata.json", image_shape)
    shards = _listed(listing) if room is None else _filled(source, about, room)
    for shard in shards:
        _check_size(shard, image_shape, room)
    return shards


def _room(about: dict[str, Any], where: Path, image_shape: tuple[int, int, int]) -> int:
    """How many images its writer makes a file for."""
    vectors = image_shape[0] * image_shape[1]
    return _number(about, where, vectors, "n_patches_per_shard", "max_tokens_per_shard") // vectors


def _filled(source: Path, about: dict[str, Any], room: int) -> list[_Shard]:
    """Files filled one after the other; the last may have room left."""
    images = _number(about, source / "metadata.json", 1, *_IMAGES)
    return [
        _Shard(source / f"acts{number:06d}.bin", min(room, images - start))
        for number, start in enumerate(range(0, images, room))
    ]


def _listed(listing: Path) -> list[_Shard]:
    """The files that shards.json names."""
    shards = []
    for number, entry in enumerate(_json(listing, list)):
        where = f"{listing}: shard {number}"
        if not isinstance(entry, dict):
            raise LightsaeError(f"{where} is {entry!r}, expected an object")
        name = _field(entry, where, str, "name")
        if Path(name).name != name:
            raise LightsaeError(f"{listing}: names {name!r}, expected a file of its folder")
        images = _number(entry, where, 0, *_IMAGES)
        shards.append(_Shard(listing.with_name(name), images))
    if not any(shard.images for shard in shards):
        raise LightsaeError(f"{listing}: lists no images")
    return shards


def _check_size(shard: _Shard, image_shape: tuple[int, int, int], room: int | None) -> None:
    """Refuse a file without its images; how many it has room for is not always known."""
    if not shard.path.is_file():
        raise LightsaeError(f"{shard.path}: is missing")
    size = shard.path.stat().st_size
    fits, rest = divmod(size, _FLOAT32_BYTES * math.prod(image_shape))
    whole = fits >= shard.images if room is None else fits in (shard.images, room)
    if rest or not whole:
        wanted = [room or shard.images, *image_shape]
        raise LightsaeError(f"{shard.path}: is not {wanted} float32, it has {size} bytes")


def _json(path: Path, kind: type[_Kind]) -> _Kind:
    """What a file holds, if it is of a kind."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LightsaeError(f"{path}: cannot be read: {reason(error)}") from error
    if not isinstance(found, kind):
        raise LightsaeError(f"{path}: holds {type(found).__name__}, expected {_KINDS[kind]}")
    return found


def _name(about: dict[str, Any], where: object, names: Sequence[str]) -> str:
    """The name that is there: saev's versions call the same value differently."""
    for name in names:
        if name in about:
            return name
    raise LightsaeError(f"{where}: has no {' or '.join(names)}")


def _field(about: dict[str, Any], where: object, kind: type[_Kind], *names: str) -> _Kind:
    """A value of a kind."""
    name = _name(about, where, names)
    value = about[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise LightsaeError(f"{where}: {name} is {value!r}, expected {_KINDS[kind]}")
    return value


def _number(about: dict[str, Any], where: object, least: int, *names: str) -> int:
    """A whole number that is large enough."""
    value = _field(about, where, int, *names)
    if value < least:
        name = _name(about, where, names)
        raise LightsaeError(f"{where}: {name} is {value}, expected {least} or more")
    return value
