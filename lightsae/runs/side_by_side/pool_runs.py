"""Pooling of run folders: the autoencoder that a run starts from, and that run's settings."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from lightsae.activations.shards.folder_lock import check_writable
from lightsae.dictionaries import pool
from lightsae.errors import LightsaeError
from lightsae.folder_contents import require_no_other
from lightsae.runs.run_folder import RunFolder, exclusive
from lightsae.runs.side_by_side.pool_options import PoolOptions
from lightsae.runs.side_by_side.shared_rows import SharedRows
from lightsae.runs.side_by_side.trained_runs import (
    autoencoder_hash,
    read_autoencoder,
    read_trained,
    run_folders,
)
from lightsae.sae import SparseAutoencoder

_START = "start"


def pool_runs(
    runs: Sequence[Path], out: Path, options: PoolOptions, epochs: int | None
) -> dict[str, Any]:
    """Write the pooled autoencoder to OUT/start, unless it is there.

    Args:
        runs: Run folders, or sweeps.
        out: The run folder to make.
        options: See there.
        epochs: Of the training that follows; None for the first run's.

    Returns:
        Settings of `fit`: the first run's, with the size and the start of the pooled one.

    Raises:
        LightsaeError: If the runs cannot be pooled, or `out` holds something else.
    """
    folders = run_folders(runs)
    if len(folders) < 2:
        raise LightsaeError(f"{folders[0]} is one run, expected at least two to pool")
    require_no_other(out, "a run")
    made = {
        "runs": [str(folder) for folder in folders],
        "xxh3": [autoencoder_hash(folder) for folder in folders],
        **asdict(options),
    }
    start = out / _START
    if (start / "sae.json").is_file():
        pooled = _pooled_before(start, made)
    elif RunFolder(out).checkpoint.exists():
        raise LightsaeError(f"{out} holds a run that was not pooled: choose another --out")
    else:
        check_writable(out)  # before work is lost
        pooled = _pooled(folders, options)
        pooled.provenance["made_by"] = made
        with exclusive(out):
            pooled.save(start)
        console = Console(stderr=True)
        console.print(
            f"{out}: {pooled.d_sae:,} unique latents of {len(folders)} runs",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    return settings_of(RunFolder(folders[0]).settings(), pooled.d_sae, start, epochs)


def _pooled(folders: Sequence[Path], options: PoolOptions) -> SparseAutoencoder:
    runs = [read_trained(folder) for folder in folders]
    saes = [read_autoencoder(folder) for folder in folders]
    rows = SharedRows(runs, "train", options.rows)
    try:
        return pool(
            saes, rows, d_sae=options.d_sae, cosine=options.cosine, iou=options.iou,
            order="frequency" if options.order == "frequency" else "stability",
            names=[str(folder) for folder in folders],
        )  # fmt: skip
    finally:
        rows.close()


def _pooled_before(start: Path, made: dict[str, Any]) -> SparseAutoencoder:
    """What an earlier command pooled, if it was asked for the same."""
    pooled = SparseAutoencoder.load(start)
    before = pooled.provenance.get("made_by")
    if not isinstance(before, dict):
        raise LightsaeError(f"{start} was not pooled by `lightsae pool`: choose another --out")
    for name, value in made.items():
        # Runs are told by their autoencoders: a path from another folder is another text.
        same = before.get("xxh3") == made["xxh3"] if name == "runs" else before.get(name) == value
        if not same:
            raise LightsaeError(
                f"{start} was pooled with {name} {before.get(name)}, now {value}: choose another "
                "--out"
            )
    return pooled


def settings_of(
    first: dict[str, Any], d_sae: int, start: Path, epochs: int | None
) -> dict[str, Any]:
    """Settings of a run that trains the pooled autoencoder."""
    kept = first.keys() - {"run_dir", "ckpt_path", "weights_only"}
    settings = deepcopy({key: value for key, value in first.items() if key in kept})
    model = settings["model"].setdefault("init_args", {})
    model["d_sae"], model["start_from"] = d_sae, str(start)
    if epochs is not None:
        settings["trainer"] |= {"max_epochs": epochs, "max_steps": -1, "min_epochs": None}
    return settings
