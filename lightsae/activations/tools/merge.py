"""`lightsae shards merge`: several folders as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from lightsae.activations.loading.label_mixing import in_random_order
from lightsae.activations.loading.splits import distinct_samples
from lightsae.activations.shards.checked_read import checksum
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import IMAGES_FROM, Manifest
from lightsae.activations.shards.manifest_comparison import differences
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.activations.shards.writer import ShardWriter
from lightsae.activations.tools.row_copy import (
    Rows,
    check_free,
    check_unmade,
    images_of,
    out_of,
    read_chunks,
    runs,
    successor,
    tell,
    tracked,
    write_pieces,
)
from lightsae.errors import LightsaeError
from lightsae.files import expanded

_COMPARED_ROWS = 1 << 24


def merge(
    folders: Sequence[str], out: str, rows_per_shard: int = 262_144, show_progress: bool = True
) -> None:
    """Write the rows of several folders to one, after each other.

    They must agree in width, dtype, model, weights, layer, tokens and classes. Where all were made
    from the same images, or from one folder, a sample index means the same image in each and stays;
    a row that two of them have is refused. Otherwise those of a folder are counted on from the
    largest of the folders before it, so that no image falls together with another. Chunks are as
    small as the smallest. Interrupted, the same command goes on.

    Args:
        folders: Two or more complete folders.
        out: The folder to make.
        rows_per_shard: A shard ends with the rows, read together, that bring it to this many.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If they differ, naming in what, two have a row in common, the disk is too
            small, or one is damaged.
    """
    if len(folders) < 2:
        raise LightsaeError(f"folders are {list(folders)}, expected two or more")
    sets = [ShardSet(expanded(folder)) for folder in folders]
    for other in sets[1:]:
        _check_comparable(sets[0], other)
    for each in sets:
        target = out_of(out, each.folder)
    same = len({images_of(each.manifest) for each in sets}) == 1
    wanted = _wanted([each.manifest for each in sets], same, rows_per_shard)
    check_unmade(target, wanted)
    check_free(target, [each.manifest for each in sets])
    if same:
        _check_distinct(sets)
    offsets = [0] * len(sets) if same else _offsets(sets)
    chunk_rows = min(each.chunk_rows for each in sets)
    total = sum(len(runs(each, rows_per_shard)) for each in sets)
    pieces = tracked("merge", total, _pieces(sets, offsets, rows_per_shard), show_progress)
    options = {"rows_per_shard": rows_per_shard, "chunk_rows": chunk_rows}
    with ShardWriter(target, wanted, **options) as writer:
        write_pieces(writer, pieces)
    tell(target, writer.manifest, show_progress)


def _check_comparable(first: ShardSet, other: ShardSet) -> None:
    """Refuse folders of other rows; how they were made may differ."""
    manifests = [replace(each.manifest, settings={}) for each in (first, other)]
    for name, here, there in differences(*manifests):
        raise LightsaeError(
            f"{first.folder} has {name} = {here!r}, {other.folder} has {there!r}: expected the same"
        )


def _wanted(manifests: list[Manifest], same: bool, rows_per_shard: int) -> Manifest:
    """The manifest to be."""
    digests = [manifest.digest() for manifest in manifests]
    mixed = all(in_random_order(manifest) for manifest in manifests)
    settings = {"of": digests, "same_images": same, "random_order": mixed}
    if not same:
        settings["data"] = f"{checksum(''.join(digests).encode()):016x}"
        settings[IMAGES_FROM] = None
    return successor(manifests[0], "merge", rows_per_shard=rows_per_shard, **settings)


def _offsets(sets: list[ShardSet]) -> list[int]:
    """What is added to the samples of each folder, so that no two have one in common."""
    offsets, end = [], 0
    for position, each in enumerate(sets):
        index = (each.read_index(chunk)[0] for chunk in range(len(each.chunks)))
        ends = [(int(samples.min()), int(samples.max())) for samples in index]
        smallest, largest = min(low for low, _ in ends), max(high for _, high in ends)
        offsets.append(end - min(smallest, 0) if position else 0)
        if largest + offsets[-1] > np.iinfo(np.int64).max:
            raise LightsaeError(
                f"{each.folder}: sample {largest} counted on from those of the folders before it "
                f"is {largest + offsets[-1]}, expected numbers below 2**63"
            )
        end = largest + offsets[-1] + 1
    return offsets


def _pieces(sets: list[ShardSet], offsets: list[int], rows_per_shard: int) -> Iterator[Rows]:
    """Every row of every folder, its samples counted on."""
    for each, offset in zip(sets, offsets, strict=True):
        for chunks in runs(each, rows_per_shard):
            rows = read_chunks(each, chunks)
            yield rows._replace(sample_index=rows.sample_index + offset)


def _check_distinct(sets: list[ShardSet]) -> None:
    """Refuse folders of which two have a token of an image; only indices are read."""
    samples = [distinct_samples(each) for each in sets]
    for one, other in combinations(range(len(sets)), 2):
        common = np.intersect1d(samples[one], samples[other], assume_unique=True)
        if len(common):
            _check_tokens(sets[one], sets[other], common)


def _check_tokens(one: ShardSet, other: ShardSet, common: Array) -> None:
    """Compare the tokens of images that two folders have, about so many rows at a time."""
    passes = -(-(one.manifest.rows + other.manifest.rows) // _COMPARED_ROWS)
    for samples in np.array_split(common, min(passes, len(common))):
        rows = [_rows_of(each, samples) for each in (one, other)]
        tokens = np.unique(np.concatenate([token for _, token in rows]))
        codes = [place * len(tokens) + np.searchsorted(tokens, token) for place, token in rows]
        for code in np.intersect1d(*codes)[:1].tolist():
            sample, token = samples[code // len(tokens)], tokens[code % len(tokens)]
            raise LightsaeError(
                f"{one.folder} and {other.folder} both have token {token} of sample {sample}: "
                "expected no row twice"
            )


def _rows_of(shards: ShardSet, samples: Array) -> Array:
    """Of all rows of some samples: the sample's place among them, and the token."""
    found = []
    for chunk in range(len(shards.chunks)):
        sample, token = shards.read_index(chunk)[:2]
        places = np.searchsorted(samples, sample).clip(max=len(samples) - 1)
        found.append(np.stack([places, token])[:, samples[places] == sample])
    return np.concatenate(found, axis=1)
