"""`lightsae shards shuffle`: the rows of a folder in a random order, in bounded memory."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from lightsae.activations.shards.disk_budget import check_room, row_bytes
from lightsae.activations.shards.dtypes import rows_of
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.activations.shards.writer import ShardWriter
from lightsae.activations.tools.progress_bar import bar
from lightsae.activations.tools.row_copy import (
    Rows,
    check_unmade,
    out_of,
    read_chunks,
    successor,
    tell,
    write_pieces,
)
from lightsae.errors import LightsaeError
from lightsae.files import expanded

_MOST_BUCKETS = 500
_PIECE_BYTES = 1 << 20


def shuffle(
    folder: str,
    out: str,
    seed: int = 0,
    buffer_bytes: int = 2 << 30,
    rows_per_shard: int = 262_144,
    show_progress: bool = True,
) -> None:
    """Write the rows of a folder to another one in a random order, every order equally likely.

    Each row goes to a temporary file drawn at random; then each file is read, shuffled and
    written. On the disk that takes twice the folder for a while. Interrupted, the same command
    goes on after the last whole shard.

    Args:
        folder: A complete folder.
        out: The folder to make.
        seed: Seed of the order.
        buffer_bytes: Memory for rows.
        rows_per_shard: Rows of a shard, about.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If the disk or the memory is too small, or a shard is damaged.
    """
    if seed < 0:
        raise LightsaeError(f"seed is {seed}, expected at least 0")
    shards = ShardSet(expanded(folder))
    target = out_of(out, shards.folder)
    manifest = shards.manifest
    whole = manifest.rows * row_bytes(manifest.d_in, manifest.dtype, manifest.has_labels)
    buckets = _buckets(whole, buffer_bytes)
    settings = {
        "shuffle_seed": seed,
        "buffer_bytes": buffer_bytes,
        "rows_per_shard": rows_per_shard,
    }
    wanted = successor(manifest, "shuffle", random_order=True, **settings)
    check_unmade(target, wanted)
    check_room(target, 2 * whole, 0, None)
    with ShardWriter(target, wanted, rows_per_shard=rows_per_shard) as writer:
        scratch = target / ".buckets"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            with bar(show_progress) as progress:
                _deal(shards, scratch, buckets, seed, progress)
                write_pieces(writer, _shuffled(shards, scratch, buckets, seed, progress))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    tell(target, writer.manifest, show_progress)


def _buckets(whole: int, buffer_bytes: int) -> int:
    """Number of temporary files, each small enough to be shuffled in memory."""
    buckets = max(1, -(-2 * whole // max(1, buffer_bytes)))
    if buckets > _MOST_BUCKETS:
        raise LightsaeError(
            f"buffer_bytes is {buffer_bytes}, expected at least {2 * whole // _MOST_BUCKETS} for "
            f"{whole} bytes of rows"
        )
    return buckets


def _deal(shards: ShardSet, scratch: Path, buckets: int, seed: int, progress: Progress) -> None:
    """Put every row into one of the files."""
    task = progress.add_task("deal", total=len(shards.chunks))
    with ExitStack() as stack:
        files = [
            [stack.enter_context(path.open("wb")) for path in _paths(scratch, bucket)]
            for bucket in range(buckets)
        ]
        for chunk in range(len(shards.chunks)):
            rows = read_chunks(shards, np.array([chunk]))
            generator = np.random.default_rng([seed, chunk])
            drawn = generator.integers(buckets, size=len(rows.activations))
            order = np.argsort(drawn, kind="stable")
            edges = np.searchsorted(drawn[order], np.arange(buckets + 1))
            for bucket in np.unique(drawn).tolist():
                mine = rows.pick(torch.from_numpy(order[edges[bucket] : edges[bucket + 1]]))
                values, index = files[bucket]
                values.write(mine.activations.view(torch.uint8).numpy().data)
                index.write(torch.stack(mine.columns(), dim=1).numpy().data)
            progress.advance(task)


def _shuffled(
    shards: ShardSet, scratch: Path, buckets: int, seed: int, progress: Progress
) -> Iterator[Rows]:
    """The rows of each file in a random order, piece by piece."""
    manifest = shards.manifest
    piece = max(1, _PIECE_BYTES // shards.row_bytes)
    task = progress.add_task("shuffle", total=buckets)
    for bucket in range(buckets):
        values, index = _paths(scratch, bucket)
        raw, columns = np.fromfile(values, np.uint8), np.fromfile(index, np.int64)
        activations = rows_of(raw, manifest.d_in, manifest.dtype)
        beside = torch.from_numpy(columns).view(len(activations), -1)
        generator = np.random.default_rng([seed, buckets, bucket])
        order = torch.from_numpy(generator.permutation(len(activations)))
        for part in order.split(piece):
            sample, token, *label = beside[part].unbind(dim=1)
            yield Rows(activations[part], sample, token, label[0] if label else None)
        progress.advance(task)


def _paths(scratch: Path, bucket: int) -> tuple[Path, Path]:
    """Files of a bucket's activations and of what is stored beside them."""
    return scratch / f"{bucket:03d}.rows", scratch / f"{bucket:03d}.index"
