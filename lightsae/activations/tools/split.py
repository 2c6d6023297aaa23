"""`lightsae shards split`: one folder as several, by image."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import torch

from lightsae.activations.loading.splits import distinct_samples, hash_samples
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.activations.shards.writer import ShardWriter
from lightsae.activations.tools.row_copy import (
    check_free,
    made_already,
    out_of,
    read_chunks,
    runs,
    successor,
    tell,
    tracked,
)
from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.plural import counted


def split(
    folder: str,
    out: str,
    fractions: Sequence[float],
    seed: int = 0,
    rows_per_shard: int = 262_144,
    show_progress: bool = True,
) -> None:
    """Divide the images of a folder at random; all rows of an image go to the same part.

    Chunks stay as small as they are. Interrupted, the same command goes on.

    Args:
        folder: A complete folder.
        out: Folder of the parts, `OUT/0`, `OUT/1`, ...
        fractions: Share of the images in each part; they add up to 1.
        seed: Seed of the division.
        rows_per_shard: A shard ends with the rows, read together, that bring it to this many.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If the fractions do not add up, or leave a part without an image, the disk is
            too small, or a shard is damaged.
    """
    _check_fractions(fractions)
    shards = ShardSet(expanded(folder))
    ends = _ends(distinct_samples(shards), fractions, seed)
    target = out_of(out, shards.folder)
    wanted = [
        successor(shards.manifest, "split", part=part, fractions=list(fractions), split_seed=seed,
                  rows_per_shard=rows_per_shard)
        for part in range(len(fractions))
    ]  # fmt: skip
    left = [
        part for part in range(len(wanted)) if not made_already(target / str(part), wanted[part])
    ]
    if not left:
        raise LightsaeError(f"{out}: is complete already ({counted(shards.manifest.rows, 'row')})")
    check_free(target, [shards.manifest])
    options = {"rows_per_shard": rows_per_shard, "chunk_rows": shards.chunk_rows}
    pieces = runs(shards, rows_per_shard)
    read = (read_chunks(shards, chunks) for chunks in pieces)
    with ExitStack() as stack:
        writers = {
            part: stack.enter_context(ShardWriter(target / str(part), wanted[part], **options))
            for part in left
        }
        for number, rows in enumerate(tracked("split", len(pieces), read, show_progress)):
            parts = np.searchsorted(ends, hash_samples(rows.sample_index.numpy(), seed), "right")
            for part, writer in writers.items():
                mine = rows.pick(torch.from_numpy(parts == part))
                done = int(writer.manifest.progress.get("pieces", 0))
                if number >= done and len(mine.activations):
                    writer.write(*mine, progress={"pieces": number + 1})
    for writer in writers.values():
        tell(writer.folder, writer.manifest, show_progress)


def _check_fractions(fractions: Sequence[float]) -> None:
    """At least two positive numbers that add up to 1."""
    positive = all(fraction > 0 for fraction in fractions)
    if len(fractions) < 2 or not positive or abs(sum(fractions) - 1) > 1e-6:
        raise LightsaeError(
            f"fractions are {list(fractions)}, expected two or more positive numbers that add up "
            "to 1"
        )


def _ends(samples: Array, fractions: Sequence[float], seed: int) -> Array:
    """The first hash behind each part but the last."""
    hashes = np.sort(hash_samples(samples, seed))
    counts = np.round(np.cumsum(fractions)[:-1] * len(hashes)).astype(int)
    edges = [0, *counts.tolist(), len(hashes)]
    if any(stop <= start for start, stop in pairwise(edges)):
        raise LightsaeError(
            f"fractions are {list(fractions)}: a part of {len(hashes)} images would have none"
        )
    ends: Array = hashes[counts]
    return ends
