"""Two processes are one with batches twice as large, and end together."""

import re
import subprocess
from pathlib import Path
from time import monotonic
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightsae.training import read_checkpoint

from ..helpers import (
    D_IN,
    command,
    environment,
    finish,
    make_data,
    metrics,
    start,
    start_pair,
    write_config,
    write_shards,
)

pytestmark = pytest.mark.slow

# With batches that hold a whole epoch, the order of its rows does not matter.
ROWS = 200
SPLITS = {"val_fraction": 0.155, "test_fraction": 0.1}
PLAN: dict[str, Any] = {
    "trainer__precision": "64-true",
    "trainer__max_epochs": 8,
    "trainer__gradient_clip_val": 0.5,
    "model__init_args__d_sae": 300,
    "model__init_args__lr_scheduler": {
        "class_path": "lightsae.training.WarmupDecay", "init_args": {"decay_steps": 4}
    },
}  # fmt: skip
CALLBACK = """
import os
import signal

from lightning.pytorch import Callback

from lightsae.errors import LightsaeError


class FailOn(Callback):
    def __init__(self, ranks: list[int], how: str):
        self.ranks, self.how = ranks, how

    def on_train_batch_end(self, trainer, *args):
        rank = trainer.global_rank
        if rank not in self.ranks or trainer.global_step != 3:
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "bug":
            raise ZeroDivisionError(f"rank {rank}")
        raise LightsaeError(f"rank {rank} cannot go on")
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", rows=ROWS)


def anchored(folder: Path) -> dict[str, Any]:
    """Latents held near a vocabulary at every second step."""
    path = folder / "words.safetensors"
    words = torch.randn(7, D_IN, generator=torch.Generator().manual_seed(0))
    save_file({"vectors": words}, path)
    settings = {"weight": 0.5, "vocabulary": str(path), "every": 2}
    anchor = {"class_path": "lightsae.sae.VocabularyAnchor", "init_args": settings}
    return {"model__init_args__anchor": anchor}


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One process and two, over the same rows."""
    folder = tmp_path_factory.mktemp("runs")
    data = make_data(shards, **SPLITS)
    rows = data.rows("train")
    # One process has a row more than the other.
    assert rows % 2 == data.rows("validation") % 2 == 1
    splits = {f"data__init_args__{name}": share for name, share in SPLITS.items()}
    config = {
        processes: write_config(
            folder / f"{processes}.yaml",
            shards,
            data__init_args__batch_size=-(-rows // processes),
            **PLAN,
            **splits,
            **anchored(folder),
        )
        for processes in (1, 2)
    }
    one = start("fit", "--config", config[1], "--run_dir", folder / "1")
    two = start_pair("fit", "--config", config[2], "--run_dir", folder / "2")
    assert finish(one, *two) == [0, 0, 0]
    return folder / "1", folder / "2"


def test_weights_and_dead_counters_are_the_same(runs: tuple[Path, Path]) -> None:
    one, two = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in runs)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-10, atol=1e-12, msg=name)
    assert one["sae.W_enc"].dtype == torch.float64
    assert one["dead_latents.tokens_since_fired"].any()


def test_what_is_logged_is_of_both_processes(runs: tuple[Path, Path]) -> None:
    one, two = (metrics(run) for run in runs)
    assert len(one) == len(two) == 2 * PLAN["trainer__max_epochs"]
    assert max(row.get("train/aux_k", 0) for row in one) > 0
    assert sum("train/nearest_cosine" in row for row in one) == PLAN["trainer__max_epochs"] - 1
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=1e-6), expected["step"]


# Without mask, AuxK or anything else that a batch shares, the gradient of a step does not depend on
# which of its rows came together.
ACCUMULATED: dict[str, Any] = {
    **PLAN,
    "trainer__accumulate_grad_batches": 2,
    "model__init_args__regularizer": None,
    "model__init_args__aux_k": None,
    # The second of two runs is longer.
    "model__init_args__lr_scheduler": None,
    "model__init_args__optimizer": {
        "class_path": "lightsae.training.SAEAdam", "init_args": {"lr": 0.01}
    },
}  # fmt: skip


def test_accumulated_and_clipped_steps_of_two_processes_are_those_of_one(
    shards: Path, tmp_path: Path
) -> None:
    splits = {"val_fraction": 0.155, "test_fraction": 0.085}
    rows = make_data(shards, **splits).rows("train")
    assert rows % 4 == 0
    chosen = {f"data__init_args__{name}": share for name, share in splits.items()}
    chosen |= anchored(tmp_path)

    def config(processes: int, epochs: int) -> Path:
        size = rows // (2 * processes)
        changes = ACCUMULATED | chosen | {"data__init_args__batch_size": size}
        changes["trainer__max_epochs"] = epochs
        return write_config(tmp_path / f"{processes}-{epochs}.yaml", shards, **changes)

    one = start("fit", "--config", config(1, 6), "--run_dir", tmp_path / "1")
    two = start_pair("fit", "--config", config(2, 3), "--run_dir", tmp_path / "2")
    assert finish(one, *two) == [0, 0, 0]
    again = start_pair("fit", "--config", config(2, 6), "--run_dir", tmp_path / "2")
    assert finish(*again) == [0, 0]
    states = [read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("1", "2")]
    assert [state["global_step"] for state in states] == [6, 6]
    for name, tensor in states[0]["state_dict"].items():
        if name.startswith("sae."):
            found = states[1]["state_dict"][name]
            torch.testing.assert_close(found, tensor, rtol=1e-9, atol=1e-11, msg=name)


def test_predict_writes_a_file_per_process_and_every_row_once(
    runs: tuple[Path, Path], shards: Path
) -> None:
    config, folder = runs[1].with_suffix(".yaml"), runs[1]
    codes = folder / "codes"
    codes.mkdir()
    for number in (1, 2, 3):
        (codes / f"codes-{number:05d}.h5").write_text("of an earlier run with more processes")
    assert finish(*start_pair("predict", "--config", config, "--run_dir", folder)) == [0, 0]
    paths = sorted(codes.iterdir())
    assert [path.name for path in paths] == ["codes-00000.h5", "codes-00001.h5"]
    samples = []
    for path in paths:
        with h5py.File(path) as file:
            assert file.attrs["rows"] == len(file["sample_index"]) == len(file["indptr"]) - 1
            samples.append(file["sample_index"][:])
    assert sorted(np.concatenate(samples)) == list(range(ROWS))


def fit_on_two(folder: Path, shards: Path, **fails: Any) -> subprocess.CompletedProcess[str]:
    (folder / "own_callback.py").write_text(CALLBACK)
    callback = {"class_path": "own_callback.FailOn", "init_args": fails}
    config = write_config(folder / "config.yaml", shards, trainer__callbacks=[callback])
    words = command("fit", "--config", config, "--run_dir", folder / "run")
    words += ["--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    return subprocess.run(
        words, env=environment(modules=folder), capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("ranks", [[1], [0, 1]], ids=["second", "both"])
def test_of_processes_that_fail_one_says_why(
    ranks: list[int], shards: Path, tmp_path: Path
) -> None:
    began = monotonic()
    done = fit_on_two(tmp_path, shards, ranks=ranks, how="error")
    assert done.returncode == 1
    assert monotonic() - began < 60
    said = [line for line in done.stderr.splitlines() if "starting from" not in line]
    assert said == [f"lightsae fit: error: rank {ranks[0]} cannot go on"]


def test_of_processes_with_a_bug_one_shows_it(shards: Path, tmp_path: Path) -> None:
    done = fit_on_two(tmp_path, shards, ranks=[0, 1], how="bug")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].endswith("ZeroDivisionError: rank 0")


def test_a_process_that_is_killed_is_named_by_the_first(shards: Path, tmp_path: Path) -> None:
    done = fit_on_two(tmp_path, shards, ranks=[1], how="killed")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "starting from" not in line]
    assert len(said) == 1
    assert re.fullmatch(r"lightsae fit: error: process \d+ of this run got SIGKILL", said[0])
