"""`lightsae fit`, `validate`, `test`, `predict`, `export` and `sweep` of a transcoder."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from lightsae.cli import main
from lightsae.evaluation import EvaluationResult, evaluate
from lightsae.runs import evaluate_run
from lightsae.sae import SparseAutoencoder, Transcoder
from lightsae.training import MetricsFile

from ..training.helpers import D_OUT, make_data, write_config, write_targets
from .helpers import Ask, files


@pytest.fixture(scope="module")
def targets(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_targets(tmp_path_factory.mktemp("data") / "targets", shards)


@pytest.fixture(scope="module")
def config(shards: Path, targets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(
        tmp_path_factory.mktemp("config") / "config.yaml", shards,
        model__init_args__transcoder={"skip": True}, data__init_args__targets=str(targets),
    )  # fmt: skip


def trained(run: Path) -> Transcoder:
    found = SparseAutoencoder.load(run / "sae")
    assert isinstance(found, Transcoder)
    return found


def test_fit_leaves_the_transcoder(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sae = trained(run)
    assert sae.d_out == D_OUT
    assert sae.W_skip is not None and sae.W_skip.any()


def test_the_first_line_of_a_run_tells_both_widths(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    assert "(d_in 6, d_out 5, d_sae 24, k 3, 323 parameters)" in capfd.readouterr().err


def test_options_of_the_command_line_make_a_transcoder(
    shards: Path, targets: Path, tmp_path: Path
) -> None:
    plain = write_config(tmp_path / "plain.yaml", shards)
    words = ["fit", "--config", str(plain), "--run_dir", str(tmp_path / "run")]
    words += ["--model.transcoder.skip", "false", "--data.targets", str(targets)]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    assert trained(tmp_path / "run").W_skip is None


def test_validate_finds_what_fit_found(run: Path, config: Path) -> None:
    assert main(["validate", "--config", str(config), "--run_dir", str(run)]) == 0
    fitted = MetricsFile(run / "metrics.jsonl").rows()[-1]
    found = MetricsFile(run / "evaluations.jsonl").rows()[-1]
    names = [name for name in fitted if name.startswith("val/")]
    assert [found[name] for name in names] == pytest.approx([fitted[name] for name in names])


def test_test_measures_the_reconstruction_of_targets(
    run: Path, config: Path, shards: Path, targets: Path
) -> None:
    assert main(["test", "--config", str(config), "--run_dir", str(run)]) == 0
    result, sae = EvaluationResult.load(run), trained(run)
    data = make_data(shards, targets=str(targets))
    data.setup()
    batches = list(data.test_dataloader())
    x = torch.cat([batch.activations for batch in batches])
    y = torch.cat([batch.targets for batch in batches])
    with torch.no_grad():
        missed = y - sae(x)
        more = y - sae.decode(sae.encode(x, k=12), x)
    spread = (y - y.mean(dim=0)).square().sum()
    assert result.scalars["r2"] == pytest.approx(
        float(1 - missed.square().sum() / spread), rel=1e-4
    )
    curve = result.curves["k_robustness"]
    found = dict(zip(curve["k"], curve["r2"], strict=True))
    assert found[3] == pytest.approx(result.scalars["r2"], rel=1e-4)
    assert found[12] == pytest.approx(float(1 - more.square().sum() / spread), rel=1e-4)
    told = result.about
    assert (told["d_in"], told["d_out"], told["targets"]["path"]) == (6, D_OUT, str(targets))


def test_evaluate_gives_the_same_from_python(
    run: Path, config: Path, shards: Path, targets: Path
) -> None:
    assert main(["test", "--config", str(config), "--run_dir", str(run)]) == 0
    data = make_data(shards, targets=str(targets))
    found = [
        EvaluationResult.load(run),
        evaluate(trained(run), data, show_progress=False),
        evaluate_run(run, data, ["own_input"], show_progress=False),
    ]
    for each in found[1:]:
        for name in ("r2", "nmse", "l0", "dead"):
            assert each.scalars[name] == pytest.approx(found[0].scalars[name], rel=1e-5)


def test_predict_needs_no_targets(run: Path, config: Path) -> None:
    assert main(["predict", "--config", str(config), "--run_dir", str(run)]) == 0
    with h5py.File(run / "codes" / "codes-00000.h5") as file:
        assert np.array_equal(np.sort(file["sample_index"]), np.arange(200))


def test_without_them_predict_asks_for_their_width(
    run: Path, config: Path, tmp_path: Path, line: Ask
) -> None:
    words = ["predict", "--config", str(config), "--run_dir", str(run), "--data.targets", "null"]
    assert "to predict codes alone, model.transcoder.d_out" in line(*words)[1]
    assert main([*words, "--model.transcoder.d_out", str(D_OUT)]) == 0


def test_export_writes_what_fit_wrote(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sae"
    assert main(["export", str(run / "checkpoints" / "last.ckpt"), "--out", str(out)]) == 0
    assert files(out) == files(run / "sae")
    assert "d_in 6, d_out 5, d_sae 24" in capsys.readouterr().err


def test_a_run_goes_on_where_its_folders_have_moved(
    config: Path, shards: Path, targets: Path, tmp_path: Path
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    words = ["fit", "--config", str(config), "--run_dir", str(run), "--trainer.max_epochs"]
    assert main([*words, "1"]) == 0
    moved.symlink_to(targets)
    assert main([*words, "2", "--data.targets", str(moved)]) == 0
    assert MetricsFile(run / "metrics.jsonl").rows()[-1]["step"] == 19


def test_another_skip_is_another_run(run: Path, config: Path, line: Ask) -> None:
    words = ("fit", "--config", config, "--run_dir", run, "--model.transcoder.skip", "false")
    assert "model.init_args.transcoder.skip was True, is False" in line(*words)[1]


def test_rows_of_another_extraction_are_refused_before_training(
    config: Path, shards: Path, tmp_path: Path, line: Ask
) -> None:
    other = write_targets(tmp_path / "other", shards, skipped=7)
    run = tmp_path / "run"
    words = ("fit", "--config", config, "--run_dir", run, "--data.targets", other)
    status, said = line(*words)
    assert status == 1
    assert f"{other}: has no row of sample 7, token 0, which {shards} has" in said
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_sweep_trains_transcoders(config: Path, tmp_path: Path) -> None:
    written = yaml.safe_load(config.read_text())
    written["model"]["init_args"]["optimizer"]["class_path"] = "lightsae.training.SAEAdam"
    grid = {"regularizer": [None, "L1L2Ratio"], "weight": [0.02], "seed": [0], "k": [3]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**written, "sweep": grid}))
    folder = tmp_path / "sweep"
    words = ["--config", str(tmp_path / "sweep.yaml"), "--run_dir", str(folder)]
    assert main(["sweep", *words]) == 0
    found = json.loads((folder / "sweep.json").read_text())["stages"][-1]["autoencoders"]
    assert [each["state"] for each in found] == ["trained", "trained"]
    for each in found:
        assert trained(folder / each["folder"]).d_out == D_OUT
