"""`lightsae shards verify`: every byte of a folder."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from lightsae.activations.shards.dtypes import as_float32
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest, ShardEntry
from lightsae.activations.shards.norm_histogram import count_norms
from lightsae.activations.shards.reading.reader import Shard, UnreadableShardError
from lightsae.activations.shards.running_moments import Moments
from lightsae.activations.tools.progress_bar import bar
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.plural import counted


def verify(folder: str, show_progress: bool = True) -> None:
    """Read every byte of a folder: hashes, NaN, and the statistics once more.

    Every bad place is named, not only the first.

    Args:
        folder: The folder; complete or not.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If anything is not what was written.
    """
    folder = expanded(folder)
    manifest = Manifest.load(folder)
    problems: list[LightsaeError] = []
    whole, norms = Moments.empty(len(manifest.mean)), Counter[str]()
    console = Console(stderr=True)
    with bar(show_progress) as progress:
        task = progress.add_task("verify", total=manifest.rows)
        for entry in manifest.shards:
            for found in check_shard(Path(folder), entry, manifest):
                if isinstance(found, Moments):
                    whole = whole.merge(found)
                elif isinstance(found, Counter):
                    norms += found
                else:
                    problems.append(found)
                    console.print(escape(str(found)), soft_wrap=True)
            progress.advance(task, entry.rows)
    if (
        not problems
        and manifest.rows
        and not (whole.agrees(manifest.mean, manifest.scale) and norms == manifest.norms)
    ):
        altered = f"{folder}/manifest.json: mean, scale or norms are not those of the rows"
        problems.append(LightsaeError(altered))
        console.print(escape(altered), soft_wrap=True)
    if problems:
        raise LightsaeError(f"{folder}: {_summary(problems)}")
    state = "complete" if manifest.complete else "not complete"
    rows, shards = counted(manifest.rows, "row", ","), counted(len(manifest.shards), "shard")
    are = "is" if manifest.rows == 1 else "are"
    said = f"{folder}: {rows} in {shards} {are} whole; the folder is {state}"
    Console().print(escape(said), soft_wrap=True)


def _summary(problems: list[LightsaeError]) -> str:
    """How many places are damaged, and how many shards could not be looked at."""
    shards = sum(isinstance(problem, UnreadableShardError) for problem in problems)
    places, said = len(problems) - shards, []
    if places:
        are = "is" if places == 1 else "are"
        said.append(f"{counted(places, 'place')} {are} not what was written")
    if shards:
        they = "it" if shards == 1 else "they"
        said.append(f"{counted(shards, 'shard')} cannot be read here, {they} may be whole")
    return "; ".join(said)


def unnamed_label(folder: Path, manifest: Manifest, largest: int) -> str | None:
    """What is wrong if classes are named, but not that of the largest label.

    Example:
        >>> manifest = Manifest(d_in=2, dtype="float16", has_labels=True, classes=["a"])
        >>> unnamed_label(Path("here"), manifest, 9)
        'here/manifest.json: classes has 1 name, expected at least 10: there is a label 9'
    """
    names = len(manifest.classes)
    if not names or largest < names:
        return None
    return (
        f"{folder / MANIFEST_NAME}: classes has {counted(names, 'name')}, expected at least "
        f"{largest + 1}: there is a label {largest}"
    )


def check_shard(
    folder: Path, entry: ShardEntry, manifest: Manifest
) -> Iterator[LightsaeError | Moments | Counter[str]]:
    """What is wrong with a shard, place by place, and the moments and norms of its rows."""
    try:
        shard = Shard(folder / entry.name, entry, manifest)
    except LightsaeError as error:
        yield error
        return
    moments, whole, largest = Moments.empty(manifest.d_in), True, -1
    with shard:
        raw = np.empty(shard.chunk_bytes, np.uint8)
        for chunk in range(shard.n_chunks):
            try:
                rows = shard.read_rows(chunk, raw)
                labels = shard.read_index(chunk)[2:]
            except LightsaeError as error:
                whole = False
                yield error
                if isinstance(error, UnreadableShardError):
                    return
                continue
            largest = max(largest, int(labels.max(initial=-1)))
            used = raw[: shard.chunk_bytes // shard.chunk_rows * rows]
            values = as_float32(used, manifest.dtype, manifest.d_in)
            moments = moments.merge(Moments.of(values))
            yield count_norms(values)
        said = shard.moments
        if whole and not moments.agrees(said.mean.tolist(), said.scale.tolist()):
            yield LightsaeError(f"{shard.path}: its rows have other means or spreads than it says")
        if problem := unnamed_label(folder, manifest, largest):
            yield LightsaeError(f"{problem} in {entry.name}")
    yield moments
