"""Folders and runs that nothing happened to, and the commands that make them."""

import json
import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
from fault_kinds.outcomes import RESUMED
from fault_kinds.processes import Child, free_port, run
from safetensors.torch import save_file

from lightsae.activations import Manifest, ShardSet

IMAGES = 1500


class Whole(NamedTuple):
    """A folder that nothing happened to, and how long it took."""

    folder: Path
    digest: str
    seconds: float


class Trained(NamedTuple):
    """The autoencoder of a training run that nothing happened to, and how long it took."""

    weights: bytes
    seconds: float


class Bench:
    """The images, the model and undisturbed folders by one process and by two."""

    def __init__(self, scratch: Path, chance: random.Random, small_disk: Path | None) -> None:
        self.scratch, self.chance, self.small_disk = scratch, chance, small_disk
        shape = (IMAGES, 32, 32, 3)
        np.save(scratch / "images.npy", np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        model = timm.create_model("test_vit", img_size=32)
        save_file(model.state_dict(), scratch / "weights.safetensors")
        self.whole = {world: self.undisturbed(world) for world in (1, 2)}
        run(self.words(scratch / "other", seed=1)).wait()
        (scratch / "fit.yaml").write_text(json.dumps(fit_config(self.whole[1].folder)))
        self.trained = self.undisturbed_training()
        (scratch / "sweep.yaml").write_text(json.dumps(sweep_config(self.whole[1].folder)))
        self.swept = self.undisturbed_sweep()

    def words(self, out: Path, seed: int = 0) -> list[str]:
        """The command."""
        words = ["extract", "--model.name", "test_vit", "--model.pretrained", "false"]
        words += ["--model.weights", str(self.scratch / "weights.safetensors")]
        words += ["--model.arguments", json.dumps({"img_size": 32}), "--layer", "blocks.1"]
        words += ["--data.arrays", str(self.scratch / "images.npy"), "--data.size", "32"]
        words += ["--tokens", "patch", "--rows_per_shard", "600", "--batch_size", "16"]
        return [*words, "--seed", str(seed), "--out", str(out)]

    def undisturbed(self, world: int) -> Whole:
        """Let one process or several write a folder."""
        folder = self.scratch / f"whole-{world}"
        start = time.perf_counter()
        said = [child.wait() for child in self.start(folder, world)]
        seconds = time.perf_counter() - start
        if any(code for code, _ in said):
            raise SystemExit(f"the undisturbed run failed: {said}")
        return Whole(folder, Manifest.load(folder).digest(), seconds)

    def fit_words(self, run_dir: Path) -> list[str]:
        """The command of a training run."""
        words = ["fit", "--config", str(self.scratch / "fit.yaml"), "--run_dir", str(run_dir)]
        return [*words, "--checkpoint_every", "7"]

    def undisturbed_training(self) -> Trained:
        """Let a training run end."""
        folder = self.scratch / "trained"
        start = time.perf_counter()
        code, text = run(self.fit_words(folder)).wait()
        if code:
            raise SystemExit(f"the undisturbed training failed: {text}")
        return Trained(autoencoder(folder), time.perf_counter() - start)

    def sweep_words(self, run_dir: Path) -> list[str]:
        """The command of a sweep."""
        words = ["sweep", "--config", str(self.scratch / "sweep.yaml"), "--run_dir", str(run_dir)]
        return [*words, "--checkpoint_every", "7"]

    def undisturbed_sweep(self) -> Trained:
        """Let a sweep end."""
        folder = self.scratch / "swept"
        start = time.perf_counter()
        code, text = run(self.sweep_words(folder)).wait()
        if code:
            raise SystemExit(f"the undisturbed sweep failed: {text}")
        return Trained(autoencoders(folder), time.perf_counter() - start)

    def start(self, out: Path, world: int) -> list[Child]:
        """Give the command."""
        if world == 1:
            return [run(self.words(out))]
        ranks = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        return [run(self.words(out), {**ranks, "RANK": str(rank)}) for rank in range(world)]

    def moment(self, world: int = 1) -> None:
        """Wait until some moment of a run."""
        time.sleep(self.chance.uniform(0, self.whole[world].seconds))

    def afterwards(self, out: Path, world: int = 1) -> str:
        """Give the command again and compare with the undisturbed folder; removes the folder."""
        said = [child.wait() for child in self.start(out, world)]
        same = not any(code for code, _ in said) and read_all(out) == read_all(
            self.whole[world].folder
        )
        same = same and Manifest.load(out).digest() == self.whole[world].digest
        shutil.rmtree(out)
        return RESUMED if same else f"differs after resuming: {said}"

    def fresh(self) -> Path:
        """A folder to write."""
        return self.scratch / "tried"


def read_all(folder: Path) -> bytes:
    """Every row and index of a folder, checked while it is read, and its statistics."""
    shards = ShardSet(folder)
    parts = [rows.tobytes() for rows in shards.read_activations(range(len(shards.chunks)))]
    parts += [shards.read_index(chunk).tobytes() for chunk in range(len(shards.chunks))]
    shards.close()
    manifest = shards.manifest
    return b"".join([*parts, json.dumps([manifest.mean, manifest.scale]).encode()])


def fit_config(shards: Path) -> dict[str, object]:
    """Settings of a training run of a few seconds."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 2, **quiet},
        "model": {"class_path": "lightsae.training.SAEModule", "init_args": {"d_sae": 256}},
        "data": {
            "class_path": "lightsae.activations.ActivationDataModule",
            "init_args": {"path": str(shards), "batch_size": 64, "val_fraction": 0.1},
        },
    }


def sweep_config(shards: Path) -> dict[str, object]:
    """Settings of a sweep of two shapes."""
    grid = {"k": [4, 8], "regularizer": ["OffSupportL1", "L1L2Ratio"], "weight": [0.001, 0.01]}
    return {**fit_config(shards), "sweep": grid}


def autoencoders(folder: Path) -> bytes:
    """All weights of a sweep, and what it found."""
    paths = [folder / "sweep.json", *sorted(folder.glob("members/*/sae/sae.safetensors"))]
    return b"".join(path.read_bytes() for path in paths)


def autoencoder(run_dir: Path) -> bytes:
    """The weights that a training run saved."""
    return (run_dir / "sae" / "sae.safetensors").read_bytes()
