"""Arrays in HDF5, NPZ and NPY files, mapped into memory where they can be."""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lightsae.activations.extraction.image_sources.file_listing import is_hidden
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.hdf5_files import open_hdf5

HDF5 = {".h5", ".hdf5", ".hdf"}


def array_names(path: Path) -> list[str]:
    """Names of a file's arrays, hidden ones left out; of a .npy file, the .npy files beside it.

    Args:
        path: A .h5, .hdf5, .hdf, .npz or .npy file.

    Raises:
        OSError: If it cannot be read.
        zipfile.BadZipFile: Likewise.
        ValueError: If it has another ending.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        files = sorted(path.parent.glob("*.npy"))
        return [other.name for other in files if other == path or not is_hidden(other.name)]
    if suffix in HDF5:
        with open_hdf5(path) as file:
            return list(file)
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not is_hidden(name)]
            return [name.removesuffix(".npy") for name in names]
    raise ValueError(f"{path} is no .h5, .hdf5, .npz or .npy file")


class _Chunked:
    """An HDF5 dataset that cannot be mapped; opened for each reading, so that it may be forked."""

    def __init__(self, path: Path, name: str, dataset: h5py.Dataset) -> None:
        self._path, self._name = path, name
        self.shape, self.dtype = dataset.shape, dataset.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, item: Any) -> Any:
        with open_hdf5(self._path) as file:
            return file[self._name][item]


@lru_cache(maxsize=16)
def open_array(path: Path, name: str, written: str) -> Any:
    """An array of a file as it was written last, on disk where it can be; nothing is unpickled.

    Args:
        path: The file.
        name: One of `array_names`.
        written: When, so that a file that changed is opened anew.

    Returns:
        What has a shape and a dtype and is sliced like numpy's arrays.

    Raises:
        OSError: If it cannot be read, as do EOFError, ValueError, BadZipFile and zlib.error.
    """
    suffix = path.suffix.lower()
    if suffix in HDF5:
        return _hdf5_array(path, name)
    if suffix == ".npy":
        return np.load(path.with_name(name), mmap_mode="r", allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        found = archive.getinfo(f"{name}.npy")
        if found.compress_type == zipfile.ZIP_STORED:
            return _mapped(path, archive, found)
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


def _hdf5_array(path: Path, name: str) -> Any:
    """A dataset, mapped if its numbers lie in the file as they are in memory."""
    with open_hdf5(path) as file:
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError("it is a group")
        if h5py.check_string_dtype(dataset.dtype):
            return np.array(dataset.asstr()[:], np.str_)
        offset, external = dataset.id.get_offset(), dataset.external
        if offset is None or external or dataset.size == 0:
            return _Chunked(path, name, dataset)
        return np.memmap(path, dataset.dtype, mode="r", offset=offset, shape=dataset.shape)


def _mapped(path: Path, archive: zipfile.ZipFile, found: zipfile.ZipInfo) -> Array:
    """An uncompressed member of a zip, mapped into memory."""
    with archive.open(found) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(member)
        header = member.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are not opened")
    with path.open("rb") as file:
        file.seek(found.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
    offset = found.header_offset + 30 + name + extra + header
    order: Any = "F" if fortran else "C"
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)
