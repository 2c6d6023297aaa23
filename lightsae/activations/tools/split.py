"""`lightsae shards split`: one folder as several, by image."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import torch

from lightsae.activations.reader import ShardSet
from lightsae.activations.splits import distinct_samples, hash_samples
from lightsae.activations.storage import Array
from lightsae.activations.tools.rows import bar, out_of, read_chunk, successor
from lightsae.activations.writer import ShardWriter
from lightsae.errors import LightsaeError


def split(
    folder: str,
    out: str,
    fractions: Sequence[float],
    seed: int = 0,
    rows_per_shard: int = 262_144,
    show_progress: bool = True,
) -> None:
    """Divide the images of a folder at random; all rows of an image go to the same part.

    Interrupted, the same command goes on.

    Args:
        folder: A complete folder.
        out: Folder of the parts, `OUT/0`, `OUT/1`, ...
        fractions: Share of the images in each part; they add up to 1.
        seed: Seed of the division.
        rows_per_shard: A shard ends with the rows of a chunk that bring it to this many.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If the fractions do not add up, or leave a part without an image.
    """
    _check_fractions(fractions)
    shards = ShardSet(folder)
    ends = _ends(distinct_samples(shards), fractions, seed)
    outs = [out_of(out, shards.folder) / str(part) for part in range(len(fractions))]
    with bar(show_progress) as progress, ExitStack() as stack:
        task = progress.add_task("split", total=len(shards.chunks))
        writers = []
        for part, path in enumerate(outs):
            settings = {"part": part, "fractions": list(fractions), "split_seed": seed,
                        "rows_per_shard": rows_per_shard}  # fmt: skip
            wanted = successor(shards.manifest, "split", **settings)
            opened = ShardWriter(path, wanted, rows_per_shard=rows_per_shard)
            writers.append(stack.enter_context(opened))
        for chunk in range(len(shards.chunks)):
            rows = read_chunk(shards, chunk)
            hashes = hash_samples(rows.sample_index.numpy(), seed)
            parts = np.searchsorted(ends, hashes, side="right")
            for part, writer in enumerate(writers):
                if chunk < int(writer.manifest.progress.get("pieces", 0)):
                    continue
                mine = rows.pick(torch.from_numpy(parts == part))
                if len(mine.activations):
                    writer.write(*mine, progress={"pieces": chunk + 1})
            progress.advance(task)


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
