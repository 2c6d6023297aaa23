"""`lightsae shards convert`: shards of what another program wrote."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lightsae.activations.extraction.image_sources.file_listing import is_hidden, stamps
from lightsae.activations.shards.disk_budget import check_room, row_bytes
from lightsae.activations.shards.dtypes import StoredDtype, storage
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest
from lightsae.activations.shards.shard_file import default_chunk_rows
from lightsae.activations.shards.writer import ShardWriter, UnstorableError
from lightsae.activations.tools.foreign_activations import Foreign
from lightsae.activations.tools.open_foreign import open_foreign
from lightsae.activations.tools.row_copy import Rows, out_of, tell, tracked, write_pieces
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.files import expanded

_PIECE_BYTES = 16 << 20
# Half of a buffer of 5% then holds 1024 chunks, so that batches of 256 rows of a set in the order
# of its classes have a chi-square of about 1 + 255 / 1024 per degree of freedom.
_LEAST_CHUNKS = 40_960


def convert(
    source: str,
    out: str,
    key: str | None = None,
    layer: int | None = None,
    labels: str | None = None,
    dtype: StoredDtype = "float16",
    rows_per_shard: int = 262_144,
    show_progress: bool = True,
) -> None:
    """Make shards of activations that another program wrote.

    Understood are an array [N, D] or [N, T, D] in a .npy, .npz, .h5, .safetensors or .pt file, and
    folders of saev and of SAELens' CacheActivationsRunner. Pickled objects are not opened.

    Rows keep their order. Chunks are small enough that training mixes a set that lies in the order
    of its classes; `lightsae shards shuffle` mixes it once and for all. Interrupted, the same
    command goes on.

    Args:
        source: File or folder.
        out: The folder to make.
        key: Name of the array or column, where there are several.
        layer: Number of the layer, where a folder of saev holds several.
        labels: A .npy file with a class number for each sample.
        dtype: Stored dtype; float16 refuses values above 65504.
        rows_per_shard: A shard ends with the piece that brings it to this many rows.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If the source is not understood, not whole, has no such key or layer, or
            holds a value that cannot be stored; or if `out` was begun from other files.
    """
    path = Path(expanded(source))
    labels = labels and expanded(labels)
    folder = out_of(out, path)
    foreign = open_foreign(path, key, layer)
    N, T, D = foreign.shape
    classes = None if labels is None else _labels(Path(labels), N)
    settings = {
        "made_by": "convert",
        "source": str(path.resolve()),
        "key": key,
        "data": _stamps(path, folder),
        "labels": labels,
        "label_data": None if labels is None else _stamps(Path(labels), folder),
        "rows_per_shard": rows_per_shard,
    }
    wanted = Manifest(d_in=D, dtype=dtype, has_labels=classes is not None, settings=settings)
    wanted = replace(wanted, model=foreign.model, layer=foreign.layer, tokens=foreign.tokens)
    storage(dtype)
    check_room(folder, N * T * row_bytes(D, dtype, classes is not None), 0, None)
    chunk_rows = min(default_chunk_rows(D, dtype), max(1, N * T // _LEAST_CHUNKS))
    step = max(1, _PIECE_BYTES // (4 * T * D))
    found = _pieces(path, foreign, classes, step)
    pieces = tracked("convert", -(-N // step), found, show_progress)
    options = {"rows_per_shard": rows_per_shard, "chunk_rows": chunk_rows}
    try:
        with ShardWriter(folder, wanted, **options) as writer:
            write_pieces(writer, pieces)
        tell(folder, writer.manifest, show_progress)
    except UnstorableError as error:
        raise LightsaeError(f"{path}: {error}") from error


def _stamps(path: Path, out: Path) -> str:
    """A fingerprint of a file, or of the files of a folder, with where they are."""
    whole = path.resolve()
    if not whole.is_dir():
        return stamps(Path(), [whole])
    files = sorted(filter(Path.is_file, whole.iterdir()))
    with_hidden = stamps(Path(), files)
    if (out / MANIFEST_NAME).exists() and Manifest.load(out).settings.get("data") == with_hidden:
        return with_hidden  # begun by a version that counted hidden files
    return stamps(Path(), [file for file in files if not is_hidden(file.name)])


def _pieces(path: Path, foreign: Foreign, labels: torch.Tensor | None, step: int) -> Iterator[Rows]:
    """Some samples at a time."""
    N, T, D = foreign.shape
    token = torch.arange(T)
    for start in range(0, N, step):
        stop = min(start + step, N)
        sample = torch.arange(start, stop).repeat_interleave(T)
        label = None if labels is None else labels[sample]
        values = _read(path, foreign, slice(start, stop)).reshape(-1, D)
        yield Rows(values, sample, token.repeat(stop - start), label)


def _read(path: Path, foreign: Foreign, part: slice) -> torch.Tensor:
    """Activations of some samples."""
    try:
        return foreign.read(part)
    except LightsaeError:
        raise
    except Exception as error:  # damaged files bring up whatever the libraries' parts raise
        raise LightsaeError(f"{path}: cannot be read: {reason(error)}") from error


def _labels(path: Path, count: int) -> torch.Tensor:
    """A class number for each sample."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise LightsaeError(f"labels: {path} cannot be read as .npy: {reason(error)}") from error
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise LightsaeError(
            f"labels: {path} is {found.dtype} {list(found.shape)}, expected integers [{count}]"
        )
    largest = int(found.max())
    if largest > np.iinfo(np.int64).max:
        raise LightsaeError(f"labels: {path} holds {largest}, expected numbers below 2**63")
    return torch.from_numpy(found.astype(np.int64))
