"""`lightsae shards merge`: several folders as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lightsae.activations.folder import check_same
from lightsae.activations.format import Manifest
from lightsae.activations.raw import checksum
from lightsae.activations.reader import ShardSet
from lightsae.activations.tools.rows import (
    Rows,
    out_of,
    read_chunk,
    successor,
    tracked,
    write_pieces,
)
from lightsae.activations.writer import ShardWriter
from lightsae.errors import LightsaeError


def merge(
    folders: Sequence[str], out: str, rows_per_shard: int = 262_144, show_progress: bool = True
) -> None:
    """Write the rows of several folders to one, after each other.

    They must agree in width, dtype, model, weights, layer, tokens and classes. Where all were made
    from the same images, a sample index means the same image in each and stays. Otherwise those of
    a folder are counted on from the largest of the folders before it, so that no image falls
    together with another. Interrupted, the same command goes on.

    Args:
        folders: Two or more complete folders.
        out: The folder to make.
        rows_per_shard: A shard ends with the chunk that brings it to this many rows.
        show_progress: Show a progress bar.

    Raises:
        LightsaeError: If they differ, naming in what, or one is damaged.
    """
    if len(folders) < 2:
        raise LightsaeError(f"folders are {list(folders)}, expected two or more")
    sets = [ShardSet(folder) for folder in folders]
    first = sets[0].manifest
    for other in sets[1:]:
        check_same(_comparable(first), _comparable(other.manifest), other.folder)
    for each in sets:
        out_of(out, each.folder)
    same = len({str(each.manifest.settings.get("data", each.folder)) for each in sets}) == 1
    digests = [each.manifest.digest() for each in sets]
    settings = {"of": digests, "same_images": same, "rows_per_shard": rows_per_shard}
    if not same:
        settings["data"] = f"{checksum(''.join(digests).encode()):016x}"
    wanted = successor(first, "merge", **settings)
    total = sum(len(each.chunks) for each in sets)
    with ShardWriter(out, wanted, rows_per_shard=rows_per_shard) as writer:
        write_pieces(writer, tracked("merge", total, _pieces(sets, same), show_progress))


def _comparable(manifest: Manifest) -> Manifest:
    """What must agree; how the rows were made may differ."""
    return replace(manifest, settings={})


def _pieces(sets: list[ShardSet], same: bool) -> Iterator[Rows]:
    """Every chunk of every folder, its samples counted on."""
    offset = 0
    for each in sets:
        largest = -1
        for chunk in range(len(each.chunks)):
            rows = read_chunk(each, chunk)
            largest = max(largest, int(rows.sample_index.max()))
            yield rows._replace(sample_index=rows.sample_index + offset)
        offset += 0 if same else largest + 1
