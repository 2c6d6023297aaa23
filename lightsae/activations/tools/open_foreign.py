"""Opening files and folders of activations that other programs wrote."""

from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors import safe_open

from lightsae.activations.extraction.image_sources.array_files import HDF5, array_names, open_array
from lightsae.activations.extraction.image_sources.file_listing import is_hidden, stamp
from lightsae.activations.shards.reading.hdf5_files import open_hdf5
from lightsae.activations.tools.foreign_activations import (
    Foreign,
    chosen,
    floats,
    refuse_key,
    shape_of,
)
from lightsae.activations.tools.open_saev import open_saev
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.torch_files import read_torch_file

_ARRAYS = {".npy", ".npz", *HDF5}


def open_foreign(source: Path, key: str | None, layer: int | None) -> Foreign:
    """Open activations of another program; numbers are read when they are asked for.

    Understood are one array in a .npy, .npz, HDF5, .safetensors or .pt file (tensors only, no
    pickled objects), a folder of saev (0.1.0, and its protocol of shards up to 2.1) and a folder of
    SAELens' CacheActivationsRunner.

    Args:
        source: File or folder.
        key: Name of the array or column, where there are several.
        layer: Number of the layer, where a folder of saev holds several.

    Raises:
        LightsaeError: If it is none of these or not whole, or has no names or layers to choose
            from where one is given.
    """
    if not source.exists():
        raise LightsaeError(f"source: there is no {source}")
    try:
        return _opened(source, key, layer)
    except LightsaeError:
        raise
    except Exception as error:  # damaged files bring up whatever the libraries' parts raise
        raise LightsaeError(f"{source}: cannot be read: {reason(error)}") from error


def _opened(source: Path, key: str | None, layer: int | None) -> Foreign:
    """Open it as what its name says."""
    if (source / "metadata.json").is_file():
        refuse_key(key, source)
        return open_saev(source, layer)
    if layer is not None:
        raise LightsaeError(f"{source}: layer is {layer}, but only a folder of saev has layers")
    suffix = source.suffix.lower()
    if source.is_dir():
        return _saelens(source, key)
    if suffix in _ARRAYS:
        return _array_file(source, key)
    if suffix == ".safetensors":
        return _safetensors(source, key)
    if suffix in (".pt", ".pth", ".bin"):
        return _torch_file(source, key)
    raise LightsaeError(
        f"{source}: expected a .npy, .npz, .h5, .safetensors or .pt file, or a folder of saev or "
        "SAELens"
    )


def _array_file(source: Path, key: str | None) -> Foreign:
    """An array of a .npy, .npz or HDF5 file."""
    suffix = source.suffix.lower()
    if suffix == ".npy":
        refuse_key(key, source)
        name = source.name
    else:
        names = _datasets(source) if suffix in HDF5 else array_names(source)
        name = chosen(names, key, source)
    array = open_array(source, name, stamp(source))
    N, T, D = shape_of(array.shape, source)

    def read(part: slice) -> torch.Tensor:
        values = np.asarray(array[part])
        if values.dtype.kind != "f":
            raise LightsaeError(f"{source}: the array is {values.dtype}, expected floats")
        return torch.from_numpy(np.array(values, order="C")).view(-1, T, D)

    read(slice(0, 1))
    return Foreign((N, T, D), read)


def _datasets(source: Path) -> list[str]:
    """Datasets of an HDF5 file and its groups whose numbers lie in the file itself."""
    names: list[str] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
            names.append(name)

    with open_hdf5(source) as file:
        file.visititems(visit)  # which follows neither soft nor external links
    return names


def _safetensors(source: Path, key: str | None) -> Foreign:
    """A tensor of a safetensors file."""
    with safe_open(source, framework="pt") as file:
        name = chosen(list(file.keys()), key, source)
        N, T, D = shape_of(file.get_slice(name).get_shape(), source, name)

    def read(part: slice) -> torch.Tensor:
        with safe_open(source, framework="pt") as file:
            return floats(file.get_slice(name)[part], source).view(-1, T, D)

    read(slice(0, 1))
    return Foreign((N, T, D), read)


def _torch_file(source: Path, key: str | None) -> Foreign:
    """A tensor that torch saved, or one of a dictionary of them."""
    try:
        found = read_torch_file(source)
    except LightsaeError as error:
        raise LightsaeError(f"{source}: cannot be read as tensors: {error}") from error
    if isinstance(found, dict):
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        found = tensors[chosen(list(tensors), key, source)]
    else:
        refuse_key(key, source)
    if not isinstance(found, torch.Tensor):
        raise LightsaeError(f"{source}: is {type(found).__name__}, expected a tensor")
    tensor = floats(_dense(found, source), source)
    N, T, D = shape_of(tensor.shape, source)
    return Foreign((N, T, D), lambda part: tensor[part].reshape(-1, T, D))


def _dense(tensor: torch.Tensor, source: Path) -> torch.Tensor:
    """Refuse what has no value at every place."""
    if tensor.is_nested or tensor.is_meta or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else "meta" if tensor.is_meta else "sparse"
        raise LightsaeError(f"{source}: the tensor is {kind}, expected a dense one")
    return tensor


def _saelens(source: Path, key: str | None) -> Foreign:
    """A folder that SAELens cached: a dataset with a column `[tokens, d]` named after the hook."""
    datasets = require("datasets", extra="data")
    if not any((source / name).is_file() for name in ("state.json", "dataset_info.json")):
        raise LightsaeError(f"{source}: has no metadata.json of saev and no state.json of SAELens")
    arrows = [path for path in source.glob("*.arrow") if not is_hidden(path.name)]
    if not arrows:  # an empty one may have no file, and cannot be loaded
        raise LightsaeError(f"{source}: has no rows")
    rows = datasets.load_from_disk(str(source)).with_format("numpy")
    if len(rows) == 0:
        raise LightsaeError(f"{source}: has no rows")
    names = [name for name in rows.column_names if name != "token_ids"]
    name = chosen(names, key, source)
    shape = np.shape(rows[0][name])
    N, T, D = shape_of((len(rows), *shape), source, name)

    def read(part: slice) -> torch.Tensor:
        found = list(rows[part][name])
        for number, row in enumerate(found, part.start):
            if row.shape != shape:
                raise LightsaeError(
                    f"{source}: row {number} of {name} is {list(row.shape)}, "
                    f"expected {list(shape)} as the first"
                )
        return floats(torch.from_numpy(np.stack(found)), source).view(-1, T, D)

    read(slice(0, 1))
    return Foreign((N, T, D), read, layer=name, tokens="all")
