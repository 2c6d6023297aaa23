"""Extraction by several processes: each writes a part of the images, the parts become one folder.

The seeded order of the images is cut between whole forward passes, so the rows of all parts, one
after the other, are those of a single process in the same order. Part r of n is a folder of its
own, `OUT/.rank-r-of-n`; when all are complete, rank 0 renames their shards into OUT.
"""

import os
import shutil
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from torch.distributed.rendezvous import rendezvous

from lightsae.activations.extraction.extraction_job import Extraction
from lightsae.activations.extraction.layer_folder import is_complete
from lightsae.activations.extraction.rank_part import Part, part_folders
from lightsae.activations.shards.folder_lock import check_writable, lock_folder
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest, shard_name
from lightsae.activations.shards.manifest_comparison import check_same
from lightsae.activations.shards.reading.reader import Shard
from lightsae.activations.shards.running_moments import Moments
from lightsae.errors import LightsaeError
from lightsae.files import sync_folder
from lightsae.plural import counted

# A rank may be ahead of the others by any time; that one ended is told by its connection.
_PATIENCE = timedelta(days=30)
# But all begin together: one that never comes is told.
_MEETING = timedelta(minutes=10)


def run_in_processes(extraction: Extraction) -> list[Manifest]:
    """Run an extraction in this process, or this process's part of it under torchrun.

    Args:
        extraction: The whole, as every process set it up.

    Returns:
        The manifests of the complete folders, one for each layer.

    Raises:
        LightsaeError: If a folder was begun by another number of processes, or another process
            ended before its part was written.
    """
    part, out = Part.of_environment(), extraction.out
    extraction = replace(extraction, show_progress=extraction.show_progress and part.rank == 0)
    left = [folder for folder in extraction.folders() if not is_complete(folder)]
    for folder in left:
        check_processes(folder, part.world)
    if left and part.world > 1:
        _run_parts(extraction, part, left)
    found = replace(
        extraction, show_progress=extraction.show_progress and not (left and part.world > 1)
    ).run()
    for folder in extraction.folders():
        _remove_parts(folder, part)
    if left and part.world > 1:
        console = Console(stderr=True, quiet=not extraction.show_progress)
        rows = counted(sum(manifest.rows for manifest in found), "row")
        console.print(
            f"{out}: {rows} of {found[0].d_in} by {part.world} processes",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    return found


def _run_parts(extraction: Extraction, part: Part, left: list[Path]) -> None:
    """Write this process's part of the folders that are left; rank 0 puts the parts together."""
    if extraction.device == "auto" and torch.cuda.is_available():
        extraction = replace(extraction, device=f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    out = extraction.out
    check_writable(out)
    store, _, _ = next(rendezvous("env://", timeout=_MEETING))
    dist.init_process_group(
        "gloo", store=store, rank=part.rank, world_size=part.world, timeout=_PATIENCE
    )
    try:
        replace(extraction, part=part).run()
        _wait_for_all(out)
        if part.rank == 0:
            for folder in left:
                assemble(folder, part.world)
        _wait_for_all(out)
    finally:
        dist.destroy_process_group()


def check_processes(out: Path, world: int) -> None:
    """Refuse to go on with a folder that another number of processes began.

    Args:
        out: The folder, existing or not.
        world: How many processes there are now.

    Raises:
        LightsaeError: Saying how many began it, and what to do.
    """
    if not os.path.isdir(out):
        return
    begun = {int(path.name.rpartition("-")[2]) for path in part_folders(out)}
    if (out / MANIFEST_NAME).exists():
        begun.add(1)
    for there in sorted(begun - {world}):
        what = out / MANIFEST_NAME if there == 1 else out / f".rank-*-of-{there}"
        raise LightsaeError(
            f"{out}: was begun by {there} process{'es' * (there > 1)}, here are {world}: "
            f"go on with --nproc_per_node {there}, or remove {what} to begin again"
        )


def _wait_for_all(out: Path) -> None:
    """Wait until every process has come here; one that has ended is an error at once."""
    try:
        dist.barrier()
    except RuntimeError as error:
        raise LightsaeError(
            f"{out}: another process ended before its part was written: "
            "run the same command again, it goes on"
        ) from error


def assemble(out: Path, world: int) -> None:
    """Make one folder of the complete parts, by renaming; begun again, it goes on.

    Args:
        out: The folder that holds the parts.
        world: How many there are.

    Raises:
        LightsaeError: If a part is missing, incomplete or of another extraction.
    """
    parts = [Part(rank, world).folder(out) for rank in range(world)]
    manifests = [Manifest.load(part) for part in parts]
    for part, manifest in zip(parts, manifests, strict=True):
        manifest.settings.pop("part", None)
        check_same(manifests[0], manifest, part)
        if not manifest.complete:
            raise LightsaeError(f"{part}: is not complete")
    lock = lock_folder(out)
    try:
        _join(out, parts, manifests).save(out)
    finally:
        os.close(lock)
    _remove_parts(out, Part())


def _join(out: Path, parts: list[Path], manifests: list[Manifest]) -> Manifest:
    """Bring the shards of all parts under names of the whole; its manifest."""
    whole = replace(
        manifests[0], rows=0, norms={}, shards=[], progress={"images": 0, "skipped": []}
    )
    moments = Moments.empty(whole.d_in)
    for part, manifest in zip(parts, manifests, strict=True):
        for entry in manifest.shards:
            name = shard_name(len(whole.shards))
            if (part / entry.name).exists():
                (part / entry.name).replace(out / name)
            whole.shards.append(replace(entry, name=name))
            with Shard(out / name, whole.shards[-1], whole) as shard:
                moments = moments.merge(shard.moments)
        whole.rows += manifest.rows
        whole.norms = dict(Counter(whole.norms) + Counter(manifest.norms))
        whole.progress["images"] += manifest.progress["images"]
        whole.progress["skipped"] += manifest.progress["skipped"]
    sync_folder(out)
    return replace(whole, mean=moments.mean.tolist(), scale=moments.scale.tolist())


def _remove_parts(out: Path, part: Part) -> None:
    """Remove what is left of the parts of a complete folder."""
    if part.rank == 0:
        for folder in part_folders(out):
            shutil.rmtree(folder)
