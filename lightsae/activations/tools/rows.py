"""Rows of a folder, chunk by chunk, and writing them to another one."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from lightsae.activations.format import Manifest
from lightsae.activations.reader import ShardSet
from lightsae.activations.storage import rows_of
from lightsae.activations.writer import ShardWriter
from lightsae.errors import LightsaeError


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


def read_chunk(shards: ShardSet, chunk: int) -> Rows:
    """Read and check a chunk.

    Args:
        shards: The folder.
        chunk: Number of the chunk.
    """
    manifest = shards.manifest
    raw = np.empty(int(shards.chunks[chunk, 2]) * shards.row_bytes, np.uint8)
    shards.read_rows(chunk, raw)
    columns = [torch.from_numpy(line.copy()) for line in shards.read_index(chunk)]
    label = columns[2] if manifest.has_labels else None
    return Rows(rows_of(raw, manifest.d_in, manifest.dtype), columns[0], columns[1], label)


def successor(found: Manifest, made_by: str, **settings: Any) -> Manifest:
    """The manifest of a folder that is made of another one.

    Args:
        found: The other one's.
        made_by: The command.
        settings: What the command was given; it is refused to go on with anything else.
    """
    kept = {**found.settings, "made_by": made_by, "of": found.digest(), **settings}
    return replace(found, settings=kept, progress={})


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


def bar(show: bool = True) -> Progress:
    """A progress bar on the standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True, quiet=not show))


def out_of(out: str, other: Path) -> Path:
    """Where to write: not into what is read."""
    folder = Path(out)
    if not out or folder.resolve() == other.resolve():
        raise LightsaeError(f"out is {out!r}, expected another folder than {other}")
    return folder
