"""Two processes are one with batches twice as large, and end together."""

import subprocess
from pathlib import Path
from time import monotonic
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightsae.training import read_checkpoint

from .helpers import (
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
SPLITS = {"val_fraction": 0.155, "test_fraction": 0.095}
PLAN: dict[str, Any] = {
    "trainer__precision": "64-true",
    "trainer__max_epochs": 8,
    "trainer__gradient_clip_val": 0.5,
    "model__init_args__d_sae": 300,
}
CALLBACK = """
from lightning.pytorch import Callback

from lightsae.errors import LightsaeError


class RaiseOn(Callback):
    def __init__(self, rank: int):
        self.rank = rank

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_rank == self.rank and trainer.global_step == 3:
            raise LightsaeError(f"rank {self.rank} cannot go on")
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", rows=ROWS)


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One process and two, over the same rows."""
    folder = tmp_path_factory.mktemp("runs")
    data = make_data(shards, **SPLITS)
    rows = data.rows("train")
    assert rows % 2 == 0
    assert data.rows("validation") % 2 == 1
    splits = {f"data__init_args__{name}": share for name, share in SPLITS.items()}
    config = {
        processes: write_config(
            folder / f"{processes}.yaml",
            shards,
            data__init_args__batch_size=rows // processes,
            **PLAN,
            **splits,
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
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=1e-6), expected["step"]


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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_the_other(rank: int, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "own_callback.py").write_text(CALLBACK)
    callback = {"class_path": "own_callback.RaiseOn", "init_args": {"rank": rank}}
    config = write_config(tmp_path / "config.yaml", shards, trainer__callbacks=[callback])
    words = command("fit", "--config", config, "--run_dir", tmp_path / "run")
    words += ["--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    began = monotonic()
    done = subprocess.run(
        words, env=environment(modules=tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert monotonic() - began < 60
    assert f"lightsae fit: error: rank {rank} cannot go on" in done.stderr
    assert "Traceback" not in done.stderr
