"""Seeds of one network: trained stacked, compared, pooled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightsae.cli import main
from lightsae.dictionaries import StabilityResult
from lightsae.errors import LightsaeError


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        images: Of the tar, at most.
        d_sae: Latents of each autoencoder.
        k: Latents per row.
        seeds: Seeds of a comparison, and of a pooled dictionary.
        pools: Pooled dictionaries, each of seeds of its own.
        epochs: Passes of each autoencoder.
        tuning: Passes of a pooled dictionary.
        batch_size: Rows per step.
    """

    images: int = 10_000
    d_sae: int = 512
    k: int = 8
    seeds: int = 5
    pools: int = 2
    epochs: int = 40
    tuning: int = 20
    batch_size: int = 512


@dataclass(frozen=True)
class Study:
    """What came out for one network, each over the test split.

    Attributes:
        seeds: Of the first seeds, as many as are pooled.
        pooled: Of pooled dictionaries of disjoint seeds, with d_sae latents.
        long: Of single autoencoders trained as many passes as all that a pooled one is made of.
    """

    seeds: StabilityResult
    pooled: StabilityResult
    long: StabilityResult

    def parts(self) -> Mapping[str, StabilityResult]:
        """The three by what they are."""
        return {"single": self.seeds, "pooled": self.pooled, "single, total budget": self.long}


def run_study(shards: Path, folder: Path, sizes: Sizes) -> Study:
    """Train, compare and pool; what an earlier call has done is taken as it is.

    Args:
        shards: Embeddings of one network.
        folder: Gets sweeps, runs and comparisons.
        sizes: How large everything is.

    Raises:
        LightsaeError: If a command fails, which has said why.
    """
    total = sizes.seeds * sizes.epochs + sizes.tuning
    every = list(range(sizes.seeds * sizes.pools))
    _train(shards, folder / "seeds", sizes, every, sizes.epochs)
    # Pairs as the pooled ones have, so that the stabilities are of as many.
    _train(shards, folder / "long", sizes, every[: sizes.pools], total)
    members = [_member(folder / "seeds", sizes, seed) for seed in every]
    groups = [members[first :: sizes.pools] for first in range(sizes.pools)]
    pooled = [folder / "pooled" / f"pool{place}" for place in range(sizes.pools)]
    for runs, out in zip(groups, pooled, strict=True):
        size, tuning = ("--d_sae", sizes.d_sae), ("--epochs", sizes.tuning)
        _run("pool", *runs, "--out", out, *size, *tuning)
    return Study(
        _compared(groups[0], folder / "compared" / "seeds"),
        _compared(pooled, folder / "compared" / "pooled"),
        _compared([folder / "long"], folder / "compared" / "long"),
    )


def _member(sweep: Path, sizes: Sizes, seed: int) -> Path:
    return sweep / "members" / f"k{sizes.k}-d_sae{sizes.d_sae}-baseline-lr0.001-seed{seed}"


def _compared(runs: Sequence[Path], out: Path) -> StabilityResult:
    if not (out / "stability.json").is_file():
        _run("compare", *runs, "--out", out)
    return StabilityResult.load(out)


def _train(shards: Path, folder: Path, sizes: Sizes, seeds: Sequence[int], epochs: int) -> None:
    """A sweep over seeds alone."""
    config = folder.with_name(f"{folder.name}.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(configuration(shards, sizes, seeds, epochs)))
    _run("sweep", "--config", config, "--run_dir", folder)


def _run(*words: object) -> None:
    if main([str(word) for word in words]) != 0:
        raise LightsaeError(f"lightsae {words[0]} failed")


def configuration(shards: Path, sizes: Sizes, seeds: Sequence[int], epochs: int) -> dict[str, Any]:
    """What a sweep over seeds is made of; as configs/seeds-digits.yaml, which explains each key.

    Args:
        shards: Embeddings.
        sizes: How large everything is.
        seeds: Of the weights.
        epochs: Passes.
    """
    model = {
        "d_sae": sizes.d_sae,
        "selection": {"class_path": "lightsae.sae.TopK", "init_args": {"k": sizes.k}},
        "aux_k": {"weight": 0.03125, "k_aux": 64},
        "optimizer": {"class_path": "lightsae.training.SAEAdam", "init_args": {"lr": 0.001}},
    }
    data = {
        "path": str(shards), "batch_size": sizes.batch_size, "val_fraction": 0.1,
        "test_fraction": 0.1,
    }  # fmt: skip
    return {
        "sweep": {"seed": list(seeds)},
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu", "devices": 1, "max_epochs": epochs,
            "enable_progress_bar": False, "check_val_every_n_epoch": epochs,
            "log_every_n_steps": 10,
        },
        "model": {"class_path": "lightsae.training.SAEModule", "init_args": model},
        "data": {"class_path": "lightsae.activations.ActivationDataModule", "init_args": data},
    }  # fmt: skip
