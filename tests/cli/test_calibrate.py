"""`lightsae calibrate`: of a run or of a folder, into another folder or where it is."""

import shutil
from pathlib import Path

import pytest
import torch

from lightsae.cli import main
from lightsae.evaluation import EvaluationResult
from lightsae.sae import BatchTopK, SparseAutoencoder, TopK
from lightsae.training import read_checkpoint

from ..training.helpers import write_config
from .helpers import Ask, files


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Batch Top-k under a Matryoshka loss."""
    folder = tmp_path_factory.mktemp("batch_topk")
    config = write_config(
        folder / "config.yaml", shards, trainer__max_epochs=1,
        model__init_args__selection={"class_path": "BatchTopK", "init_args": {"k": 3}},
        model__init_args__reconstruction={
            "class_path": "Matryoshka", "init_args": {"prefixes": [0.5]}
        },
    )  # fmt: skip
    assert main(["fit", "--config", str(config), "--run_dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_the_run_stays_as_it_is_beside_a_new_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = files(run), tmp_path / "out"
    assert main(["calibrate", str(run), "--out", str(out)]) == 0
    assert files(run) == before
    old, new = SparseAutoencoder.load(run / "sae"), SparseAutoencoder.load(out)
    assert torch.equal(old.W_enc, new.W_enc)
    told = capsys.readouterr().err
    assert told.startswith(f"{out}: BatchTopK k = 3: L0 ") and told.count("\n") == 1
    assert " before, L0 3 with threshold " in told and "over 160 rows" in told


def test_in_place_a_test_uses_the_new_threshold(run: Path) -> None:
    assert main(["calibrate", str(run), "--in_place"]) == 0
    kept = SparseAutoencoder.load(run / "sae").state_dict()["selection.threshold"]
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert torch.equal(content["state_dict"]["sae.selection.threshold"], kept)
    assert main(["validate", "--run_dir", str(run)]) == 0
    assert main(["test", "--run_dir", str(run), "--evaluation.probes", "false"]) == 0
    assert EvaluationResult.load(run).about["selection"] == "BatchTopK"


def test_a_folder_is_calibrated_on_the_shards_that_are_named(
    run: Path, shards: Path, tmp_path: Path, line: Ask
) -> None:
    folder = run / "sae"
    status, text = line("calibrate", folder, "--in_place")
    assert status == 1
    assert text.endswith(f"{folder} is no run folder: --data must name a folder of shards")
    sae = SparseAutoencoder.load(folder)
    assert isinstance(sae.selection, BatchTopK)
    sae.selection.threshold.fill_(-1.0)
    sae.save(folder)
    assert main(["calibrate", str(folder), "--data", str(shards), "--in_place"]) == 0
    assert SparseAutoencoder.load(folder).state_dict()["selection.threshold"] > 0


def test_a_run_beside_a_running_model_needs_shards(run: Path, tmp_path: Path, line: Ask) -> None:
    config = (run / "config.yaml").read_text()
    assert "ActivationDataModule" in config
    (run / "config.yaml").write_text(
        config.replace(".ActivationDataModule", ".OnlineActivationDataModule")
    )
    _, text = line("calibrate", run, "--out", tmp_path / "out")
    assert text.endswith("names no shards: --data must name a folder of them")


@pytest.mark.parametrize("words", [[], ["--out", "out", "--in_place"]], ids=["nowhere", "twice"])
def test_where_the_result_goes_is_said_once(run: Path, words: list[str], line: Ask) -> None:
    status, text = line("calibrate", run, *words)
    assert status == 2 and "--out FOLDER or --in_place" in text


def test_what_cannot_be_calibrated_is_refused_and_nothing_written(
    run: Path, tmp_path: Path, shards: Path, line: Ask
) -> None:
    SparseAutoencoder(6, 24, TopK(3)).save(tmp_path / "topk")
    SparseAutoencoder(5, 24, BatchTopK(3)).save(tmp_path / "narrow")
    before = files(tmp_path)
    for words, told in (
        ((tmp_path / "topk", "--data", shards), "selection TopK has no threshold"),
        ((tmp_path / "narrow", "--data", shards), "5"),
        ((tmp_path / "none", "--data", shards), "none/sae.json cannot be read"),
        ((run, "--data", tmp_path / "none"), "none"),
    ):
        status, text = line("calibrate", *words, "--in_place")
        assert status == 1 and told in text
    assert line("calibrate", run, "--out", run / "sae")[1].endswith("choose another --out")
    assert files(tmp_path) == before
