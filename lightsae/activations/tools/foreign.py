"""Activations that other programs wrote, piece by piece."""

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from lightsae.activations.arrays import HDF5, array_names, open_array
from lightsae.activations.image_sources.files import stamp
from lightsae.activations.models import closest
from lightsae.activations.told import told
from lightsae.errors import LightsaeError
from lightsae.extras import require

_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error,
    SafetensorError,
)  # fmt: skip
_ARRAYS = {".npy", ".npz", *HDF5}


class Foreign(NamedTuple):
    """Activations `[N, D]`, or `[N, T, D]` with T vectors for each of N samples.

    Attributes:
        shape: `(N, T, D)`.
        read: From a slice of samples, their activations `[n, T, D]`, float of any width.
        model: Name of the model, if known.
        layer: Name of the layer, if known.
        tokens: Kind of the vectors, if known.
    """

    shape: tuple[int, int, int]
    read: Callable[[slice], torch.Tensor]
    model: str = ""
    layer: str = ""
    tokens: str = ""


def open_foreign(source: Path, key: str | None, layer: int | None) -> Foreign:
    """Open activations of another program; numbers are read when they are asked for.

    Understood are one array in a .npy, .npz, HDF5, .safetensors or .pt file (tensors only, no
    pickled objects), a folder of saev (its protocol of sharded activations, versions 1 and 2) and
    a folder of SAELens' CacheActivationsRunner.

    Args:
        source: File or folder.
        key: Name of the array or column, where there are several.
        layer: Number of the layer, where a folder of saev holds several.

    Raises:
        LightsaeError: If it is none of these or not whole.
    """
    if not source.exists():
        raise LightsaeError(f"source: there is no {source}")
    try:
        if source.is_dir():
            if (source / "metadata.json").is_file():
                return _saev(source, layer)
            return _saelens(source, key)
        suffix = source.suffix.lower()
        if suffix in _ARRAYS:
            return _array_file(source, key)
        if suffix == ".safetensors":
            return _safetensors(source, key)
        if suffix in (".pt", ".pth", ".bin"):
            return _torch_file(source, key)
    except _UNREADABLE as error:
        raise LightsaeError(f"{source}: cannot be read: {told(error)}") from error
    raise LightsaeError(
        f"{source}: expected a .npy, .npz, .h5, .safetensors or .pt file, or a folder of saev or "
        "SAELens"
    )


def _shape(shape: Sequence[int], source: Path, name: str = "the array") -> tuple[int, int, int]:
    """Samples, vectors of each and width."""
    if len(shape) == 2:
        shape = (shape[0], 1, shape[1])
    if len(shape) != 3 or min(shape) < 1:
        raise LightsaeError(f"{source}: {name} is {list(shape)}, expected [N, D] or [N, T, D]")
    return shape[0], shape[1], shape[2]


def _array_file(source: Path, key: str | None) -> Foreign:
    """An array of a .npy, .npz or HDF5 file."""
    single = source.suffix.lower() == ".npy"
    name = source.name if single else _chosen(array_names(source), key, source)
    array = open_array(source, name, stamp(source))
    N, T, D = _shape(array.shape, source)

    def read(part: slice) -> torch.Tensor:
        values = np.asarray(array[part])
        if values.dtype.kind != "f":
            raise LightsaeError(f"{source}: the array is {values.dtype}, expected floats")
        return torch.from_numpy(np.array(values, order="C")).view(-1, T, D)

    read(slice(0, 1))
    return Foreign((N, T, D), read)


def _chosen(names: list[str], key: str | None, source: Path) -> str:
    """The only array, or the one asked for."""
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        near = closest(key, names) if key else ""
        asked = f"no array {key!r}{near}" if key else "several arrays, key says which"
        raise LightsaeError(f"{source}: {asked} (it has {', '.join(names)})")
    return key


def _safetensors(source: Path, key: str | None) -> Foreign:
    """A tensor of a safetensors file."""
    with safe_open(source, framework="pt") as file:
        name = _chosen(list(file.keys()), key, source)
        N, T, D = _shape(file.get_slice(name).get_shape(), source, name)

    def read(part: slice) -> torch.Tensor:
        with safe_open(source, framework="pt") as file:
            return _floats(file.get_slice(name)[part], source).view(-1, T, D)

    read(slice(0, 1))
    return Foreign((N, T, D), read)


def _torch_file(source: Path, key: str | None) -> Foreign:
    """A tensor that torch saved, or one of a dictionary of them; mapped, not read."""
    try:
        found = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its parts do
        raise LightsaeError(f"{source}: cannot be read as tensors: {told(error)}") from error
    if isinstance(found, dict):
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        found = tensors[_chosen(list(tensors), key, source)]
    if not isinstance(found, torch.Tensor):
        raise LightsaeError(f"{source}: is {type(found).__name__}, expected a tensor")
    tensor = _floats(found, source)
    N, T, D = _shape(tensor.shape, source)
    return Foreign((N, T, D), lambda part: tensor[part].reshape(-1, T, D))


def _floats(tensor: torch.Tensor, source: Path) -> torch.Tensor:
    """Refuse what is not a float."""
    if not tensor.is_floating_point():
        raise LightsaeError(f"{source}: the tensor is {tensor.dtype}, expected floats")
    return tensor


def _saev(source: Path, layer: int | None) -> Foreign:
    """A folder of saev: `metadata.json`, `shards.json`, float32 `[n, layers, tokens, d]` files."""
    about = json.loads((source / "metadata.json").read_text())
    listed = json.loads((source / "shards.json").read_text())
    width = int(about.get("d_model", about.get("d_vit")))
    patches = int(about.get("patches_per_ex", about.get("n_patches_per_img")))
    tokens = patches + bool(about["cls_token"])
    layers = [int(number) for number in about["layers"]]
    if (layer is None and len(layers) > 1) or (layer is not None and layer not in layers):
        raise LightsaeError(f"{source}: layer is {layer}, it has the layers {layers}")
    place = 0 if layer is None else layers.index(layer)
    files, ends = [], [0]
    for shard in listed:
        name, count = str(shard["name"]), int(shard.get("n_ex", shard.get("n_imgs")))
        if Path(name).name != name:
            raise LightsaeError(f"{source}: shards.json names {name!r}, expected a file of it")
        shape = (count, len(layers), tokens, width)
        if (source / name).stat().st_size != 4 * int(np.prod(shape)):
            raise LightsaeError(f"{source / name}: is not {list(shape)} float32, it is cut short")
        files.append(np.memmap(source / name, np.float32, "r", shape=shape))
        ends.append(ends[-1] + count)

    def read(part: slice) -> torch.Tensor:
        parts = []
        for file, first in zip(files, ends, strict=False):
            low, high = max(part.start - first, 0), min(part.stop - first, len(file))
            if low < high:
                parts.append(np.array(file[low:high, place]))
        return torch.from_numpy(np.concatenate(parts))

    model = str(about.get("ckpt", about.get("vit_ckpt", "")))
    kind = "all" if about["cls_token"] else "patch"
    return Foreign((ends[-1], tokens, width), read, model, str(layers[place]), kind)


def _saelens(source: Path, key: str | None) -> Foreign:
    """A folder that SAELens cached: a dataset with a column `[tokens, d]` named after the hook."""
    datasets = require("datasets", extra="data")
    if not any((source / name).is_file() for name in ("state.json", "dataset_info.json")):
        raise LightsaeError(f"{source}: has no metadata.json of saev and no state.json of SAELens")
    rows = datasets.load_from_disk(str(source)).with_format("numpy")
    names = [name for name in rows.column_names if name != "token_ids"]
    name = _chosen(names, key, source)
    T, D = rows[0][name].shape

    def read(part: slice) -> torch.Tensor:
        return torch.from_numpy(np.stack(list(rows[part][name]))).view(-1, T, D)

    return Foreign((len(rows), T, D), read, layer=name, tokens="all")
