"""`lightsae sweep`: run folders as `fit` makes them, whatever stopped it in between."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path

from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import MetricsFile, read_checkpoint

from ...training.helpers import D_IN, finish, metrics, start
from .helpers import GRID, left_behind, write_sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("config") / "sweep.yaml", shards, GRID)


@pytest.fixture(scope="module")
def done(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sweep that nothing stopped."""
    folder = tmp_path_factory.mktemp("sweeps") / "done"
    assert main(["sweep", "--config", str(config), "--run_dir", str(folder)]) == 0
    yield folder


def fit(settings: Path, folder: Path, *words: str) -> None:
    assert main(["fit", "--config", str(settings), "--run_dir", str(folder), *words]) == 0


def members(folder: Path) -> list[dict[str, Any]]:
    grid = json.loads((folder / "sweep.json").read_text())["stages"][-1]
    assert grid["name"] == "grid"
    found: list[dict[str, Any]] = grid["autoencoders"]
    return found


def leaves(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {str(path): leaf for path, leaf in tree_flatten_with_path(checkpoint)[0]}


def test_every_member_is_a_run_of_its_shape_and_regularizer(done: Path) -> None:
    found = members(done)
    assert len(found) == 2 * 2 * 3
    assert {(m["k"], m["variant"], m["weight"], m["seed"]) for m in found} == {
        (k, name, weight, seed)
        for k in (2, 3)
        for seed in (0, 1)
        for name, weight in [("baseline", 0.0)]
        + [(r, w) for r in ("OffSupportL1", "L1L2Ratio") for w in (0.02,)]
    }
    for member in found:
        assert member["state"] == "trained" and member["step"] == 20
        folder = done / member["folder"]
        sae = SparseAutoencoder.load(folder / "sae")
        assert sae.selection.k == member["k"]
        last = MetricsFile(folder / "metrics.jsonl").rows()[-1]
        assert last["val/r2"] == member["validation"]["r2"]
    assert not any((done / "groups").iterdir())


def test_a_member_equals_fit_with_its_configuration(done: Path, tmp_path: Path) -> None:
    name = "k3-d_sae24-L1L2Ratio-0.02-lr0.01-seed1"
    fit(done / "members" / name / "config.yaml", tmp_path / "fit")
    stacked, apart = (
        read_checkpoint(folder / "checkpoints" / "last.ckpt")
        for folder in (done / "members" / name, tmp_path / "fit")
    )
    mine, theirs = leaves(apart), leaves(stacked)
    assert sorted(mine) == sorted(theirs)
    for key, leaf in mine.items():
        if isinstance(leaf, Tensor):
            torch.testing.assert_close(theirs[key], leaf, rtol=1e-4, atol=1e-5)
        else:
            assert theirs[key] == leaf, key
    rows = metrics(tmp_path / "fit"), metrics(done / "members" / name)
    for row, other in zip(*rows, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-5)


def test_fit_goes_on_with_a_member(done: Path, tmp_path: Path) -> None:
    name = "k2-d_sae24-baseline-lr0.01-seed0"
    folder = tmp_path / name
    fit(done / "members" / name / "config.yaml", folder)
    longer = ("--trainer.max_epochs", "3")
    fit(folder / "config.yaml", folder, *longer)
    copy = tmp_path / "copy"
    shutil.copytree(done / "members" / name, copy)
    fit(copy / "config.yaml", copy, *longer)
    ended = [read_checkpoint(f / "checkpoints" / "last.ckpt") for f in (folder, copy)]
    assert [content["global_step"] for content in ended] == [30, 30]
    weights = [content["state_dict"]["sae.W_enc"] for content in ended]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


def test_the_same_command_again_trains_nothing(
    done: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left_behind(done)
    assert main(["sweep", "--config", str(config), "--run_dir", str(done)]) == 0
    said = capsys.readouterr()
    assert "group" not in said.err
    assert "OffSupportL1" in said.out and "the baseline's R²" in said.out
    assert left_behind(done) == before


def test_another_grid_is_refused(
    done: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        (["--sweep.seed", "[0, 2]"], "sweep.seed was [0, 1], is [0, 2]"),
        (["--trainer.max_epochs", "3"], "trainer.max_epochs was 2, is 3"),
    ):
        command = ["sweep", "--config", str(config), "--run_dir", str(done), *words]
        assert main(command) == 1
        assert told in capsys.readouterr().err


def test_killed_in_the_middle_it_ends_with_the_same_bits(
    done: Path, config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    words = ("sweep", "--config", config, "--run_dir", folder, "--checkpoint_every", 3)
    process = start(*words)
    waited = 0.0
    # Within the second group: the first is done, the second has a checkpoint.
    while process.is_alive() and not list(folder.glob("groups/grid-k3*/last.ckpt")):
        time.sleep(0.01)
        waited += 0.01
        assert waited < 300
    assert process.pid is not None and process.is_alive()
    process.kill()
    assert finish(process) == [-signal.SIGKILL]
    assert finish(start(*words)) == [0]
    ended, whole = left_behind(folder), left_behind(done)
    differ = [name for name in whole if ended.get(name) != whole[name]]
    assert [name for name in differ if not name.endswith("config.yaml")] == []
    assert ended.keys() == whole.keys()


def test_a_member_that_fails_is_marked(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"regularizer": ["OffSupportL1"], "weight": [0.001, 1e39], "seed": [0]}
    path = write_sweep(tmp_path / "sweep.yaml", shards, grid)
    folder = tmp_path / "sweep"
    assert main(["sweep", "--config", str(path), "--run_dir", str(folder)]) == 0
    states = {member["weight"]: member["state"] for member in members(folder)}
    assert states == {0.0: "trained", 0.001: "trained", 1e39: "failed"}
    failed = next(member for member in members(folder) if member["state"] == "failed")
    assert failed["failure"] and failed["step"] >= 1
    assert not (folder / failed["folder"] / "sae").exists()
    said = capsys.readouterr()
    assert "failed at step" in said.err and "1 failed" in said.out


def test_a_sweep_goes_on_with_the_vocabulary_it_was_begun_with(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.safetensors"
    save_file({"vectors": torch.randn(9, D_IN)}, words)
    settings = {"weight": 0.5, "vocabulary": str(words)}
    grid = {"regularizer": ["OffSupportL1"], "weight": [0.02], "seed": [0]}
    path = write_sweep(
        tmp_path / "sweep.yaml", shards, grid, trainer__max_epochs=1,
        model__init_args__anchor={"class_path": "VocabularyAnchor", "init_args": settings},
    )  # fmt: skip
    folder = tmp_path / "sweep"
    words_of_sweep = ["sweep", "--config", str(path), "--run_dir", str(folder)]
    assert main(words_of_sweep) == 0
    for member in members(folder):
        assert "train/anchor" in metrics(folder / member["folder"])[-2]
    moved = words.rename(tmp_path / "moved.safetensors")
    again = [*words_of_sweep, "--model.anchor.vocabulary", str(moved)]
    assert main(again) == 0
    save_file({"vectors": torch.ones(9, D_IN)}, moved)
    capsys.readouterr()
    assert main(again) != 0
    assert "sweep.json: was trained with another vocabulary than" in capsys.readouterr().err


def test_lambda_is_found_without_knowing_its_size(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"regularizer": ["L1L2Ratio"], "seed": [0, 1], "find_lambda": True, "find_share": 0.5}
    path = write_sweep(tmp_path / "sweep.yaml", shards, grid)
    folder = tmp_path / "sweep"
    assert main(["sweep", "--config", str(path), "--run_dir", str(folder)]) == 0
    stages = {stage["name"]: stage["autoencoders"]
              for stage in json.loads((folder / "sweep.json").read_text())["stages"]}  # fmt: skip
    assert list(stages)[:2] == ["find 0", "find 1"]
    assert all(member["step"] == 10 for member in stages["find 1"])
    tried = sorted({member["weight"] for member in stages["find 1"]})
    assert len(tried) == 7 and tried[-1] / tried[0] == pytest.approx(1000, rel=0.02)
    final = sorted({member["weight"] for member in stages["grid"]} - {0.0})
    assert len(final) == 4 and final[-1] / final[0] == pytest.approx(8, rel=0.02)
    assert "of short runs" in capsys.readouterr().err
    assert not any((folder / "groups").iterdir())
