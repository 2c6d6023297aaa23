"""Copying rows of one shard folder to another, chunk by chunk."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from lightsae.activations.loading.label_mixing import in_random_order
from lightsae.activations.shards.disk_budget import check_room, row_bytes
from lightsae.activations.shards.dtypes import Array, rows_of
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest
from lightsae.activations.shards.manifest_comparison import differences
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.activations.shards.writer import ShardWriter
from lightsae.activations.tools.progress_bar import bar
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.plural import counted

_PIECE_BYTES = 512 << 10


class Rows(NamedTuple):
    """Rows as `ShardWriter.write` takes them.

    Attributes:
        activations: `[n, d_in]` of the stored dtype.
        sample_index: Int64 `[n]`.
        token_index: Int64 `[n]`.
        label: Int64 `[n]`, or None.
    """

    activations: Tensor
    sample_index: Tensor
    token_index: Tensor
    label: Tensor | None

    def pick(self, which: Tensor) -> "Rows":
        """Some of the rows: a mask, or their positions."""
        label = None if self.label is None else self.label[which]
        return Rows(
            self.activations[which], self.sample_index[which], self.token_index[which], label
        )

    def columns(self) -> list[Tensor]:
        """What is stored beside the activations."""
        columns = [self.sample_index, self.token_index]
        return columns if self.label is None else [*columns, self.label]


def runs(shards: ShardSet, rows_per_shard: int) -> list[Array]:
    """Consecutive chunks to read together: half a MiB, but no more than a shard; or one chunk.

    Args:
        shards: The folder.
        rows_per_shard: Rows of a shard of the folder that is made.

    Returns:
        Numbers of chunks, for each piece.
    """
    rows = shards.chunks[:, 2]
    most = max(1, min(rows_per_shard, _PIECE_BYTES // shards.row_bytes))
    piece = (np.cumsum(rows) - rows) // most
    return np.split(np.arange(len(rows)), np.flatnonzero(np.diff(piece)) + 1)


def read_chunks(shards: ShardSet, chunks: Array) -> Rows:
    """Read and check some chunks.

    Args:
        shards: The folder.
        chunks: Their numbers.
    """
    manifest = shards.manifest
    raw = np.empty(int(shards.chunks[chunks, 2].sum()) * shards.row_bytes, np.uint8)
    filled, index = 0, []
    for chunk in chunks.tolist():
        filled += shards.read_rows(chunk, raw[filled:]) * shards.row_bytes
        index.append(shards.read_index(chunk))
    columns = [torch.from_numpy(line) for line in np.concatenate(index, axis=1)]
    label = columns[2] if manifest.has_labels else None
    return Rows(rows_of(raw, manifest.d_in, manifest.dtype), columns[0], columns[1], label)


def successor(found: Manifest, made_by: str, **settings: Any) -> Manifest:
    """The manifest of a folder that is made of another one.

    Args:
        found: The other one's.
        made_by: The command.
        settings: What the command was given; it is refused to go on with anything else.
    """
    made = {
        "made_by": made_by,
        "of": found.digest(),
        "origin": origin(found),
        "random_order": in_random_order(found),
    }
    return replace(found, settings={**found.settings, **made, **settings}, progress={})


def origin(manifest: Manifest) -> str:
    """Digest of the folder that others were made of, one of another; its own where it is that."""
    settings = manifest.settings
    return str(settings.get("origin") or settings.get("of") or manifest.digest())


def images_of(manifest: Manifest) -> tuple[str, str]:
    """What tells the images of a folder: the same where a sample index means the same image."""
    settings = manifest.settings
    return str(settings.get("data") or origin(manifest)), str(settings.get("key"))


def made_already(folder: Path, wanted: Manifest) -> bool:
    """Whether a folder is complete and what is about to be made.

    Args:
        folder: Existing or not.
        wanted: What its manifest would say.

    Raises:
        LightsaeError: If it is complete and something else.
    """
    if not (folder / MANIFEST_NAME).exists():
        return False
    found = Manifest.load(folder)
    if found.complete:
        for name, there, here in differences(found, wanted):
            raise LightsaeError(
                f"{folder}: is complete and has {name} = {there!r}, this command has {here!r}: "
                "use another folder"
            )
    return found.complete


def check_unmade(folder: Path, wanted: Manifest) -> None:
    """Refuse a complete folder; see `made_already`."""
    if made_already(folder, wanted):
        rows = counted(Manifest.load(folder).rows, "row")
        raise LightsaeError(f"{folder}: is complete already ({rows})")


def check_free(out: Path, manifests: Iterable[Manifest]) -> None:
    """Refuse to write again what some folders hold, if the disk is too full.

    Args:
        out: Where; what is there already is not counted.
        manifests: Of the folders.

    Raises:
        LightsaeError: Naming what it takes and what is free.
    """
    whole = sum(each.rows * row_bytes(each.d_in, each.dtype, each.has_labels) for each in manifests)
    there = sum(path.stat().st_size for path in out.glob("**/shard-*.h5"))
    check_room(out, whole, there, None)


def write_pieces(writer: ShardWriter, pieces: Iterator[Rows]) -> None:
    """Write pieces, less those that are there from an interrupted command.

    Args:
        writer: Opened on the folder.
        pieces: All of them, in the same order each time.
    """
    done = int(writer.manifest.progress.get("pieces", 0))
    for number, piece in enumerate(pieces):
        if number >= done and len(piece.activations):
            writer.write(*piece, progress={"pieces": number + 1})


def tracked(task: str, total: int, pieces: Iterable[Rows], show: bool) -> Iterator[Rows]:
    """Pieces, while a progress bar counts them."""
    with bar(show) as progress:
        yield from progress.track(pieces, total, description=task)


def tell(folder: Path, manifest: Manifest, show: bool) -> None:
    """The closing line: what a folder has become."""
    rows = counted(manifest.rows, "row")
    Console(stderr=True, quiet=not show).print(
        f"{folder}: {rows} of {manifest.d_in}", markup=False, highlight=False, soft_wrap=True
    )


def out_of(out: str, other: Path) -> Path:
    """Where to write: not into what is read."""
    folder = Path(expanded(out)) if out else other
    if folder.resolve() == other.resolve():
        raise LightsaeError(f"out is {out!r}, expected another folder than {other}")
    return folder
