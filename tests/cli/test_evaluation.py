"""`lightsae test` with every metric, and `lightsae compare`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightsae.activations import Manifest, ShardWriter
from lightsae.cli import main
from lightsae.evaluation import EvaluationResult
from lightsae.extras import MissingExtraError
from lightsae.training import MetricsFile

from ..training.helpers import D_SAE, environment, finish, start_pair, write_config, write_shards
from .helpers import Ask

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "labelled", labels=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of the same samples, in another order."""
    generator = torch.Generator().manual_seed(5)
    folder = tmp_path_factory.mktemp("data") / "other"
    with ShardWriter(folder, Manifest(d_in=4, dtype="float32")) as writer:
        order = torch.randperm(200, generator=generator)
        writer.write(torch.randn(200, 4, generator=generator), order)
    return folder


@pytest.fixture(scope="module")
def settings(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "config.yaml", labelled)


@pytest.fixture(scope="module")
def trained(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["fit", "--config", str(settings), "--run_dir", str(folder)]) == 0
    return folder


def test_test_writes_every_figure_and_shows_them(
    trained: Path, settings: Path, other: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["test", "--config", str(settings), "--run_dir", str(trained)]
    assert main([*words, f"--evaluation.embeddings=[own_input,{other}]"]) == 0
    result = EvaluationResult.load(trained)
    logged = MetricsFile(trained / "evaluations.jsonl").rows()[-1]
    for name in ("r2", "l0", "dead", "loss", "penalty"):
        assert result.scalars[name] == pytest.approx(logged[f"test/{name}"], rel=1e-6)
    assert result.embedding_names == ["own_input", "other"]
    assert {"purity_binary", "probe_auc", "ms_mean/other"} <= result.scalars.keys()
    assert len(result.latents["ms/other"]) == D_SAE
    about = result.about
    assert (about["step"], about["seed"], about["rows"]) == (20, 3, 20)
    assert about["regularizer"] == {"name": "L1L2Ratio", "weight": 0.05}
    assert about["checkpoint"] == str(trained / "checkpoints" / "last.ckpt")
    text = capfd.readouterr().out
    for shown in ("reconstruction", "sparsity", "interpretability", "probes", "dead as 0",
                  "scored", "undefined", "other", "which inflates MS"):  # fmt: skip
        assert shown in text
    assert "Test metric" not in text and "test/r2" not in text


def test_one_config_serves_every_command(
    trained: Path, settings: Path, other: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load(settings.read_text())
    config["evaluation"] = {
        "embeddings": [{"name": "cnn", "shards": str(other)}], "probes": False,
    }  # fmt: skip
    changed = tmp_path / "config.yaml"
    changed.write_text(yaml.safe_dump(config))
    words = ["--config", str(changed), "--run_dir", str(trained)]
    for command in ("fit", "validate", "test"):
        assert main([command, *words]) == 0
    result = EvaluationResult.load(trained)
    assert result.embedding_names == ["cnn"] and "probe_auc" not in result.scalars


def test_embeddings_that_lack_samples_end_the_command_at_once(
    trained: Path, settings: Path, tmp_path: Path, line: Ask
) -> None:
    with ShardWriter(tmp_path / "few", Manifest(d_in=4, dtype="float32")) as writer:
        writer.write(torch.randn(3, 4), torch.arange(3))
    status, text = line(
        "test", "--config", settings, "--run_dir", trained,
        f"--evaluation.embeddings=[{tmp_path / 'few'}]",
    )  # fmt: skip
    assert status == 1
    assert "few: has no rows of " in text and "the first is sample" in text


def test_an_option_that_cannot_be_is_told_in_one_line(
    trained: Path, settings: Path, line: Ask
) -> None:
    status, text = line(
        "test", "--config", settings, "--run_dir", trained, "--evaluation.top_images=0"
    )
    assert status == 1
    assert "evaluation.top_images is 0, expected at least 1" in text


def test_without_scikit_learn_probes_are_left_out_and_all_else_is_there(
    trained: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("sklearn is not installed: pip install 'lightsae[evaluation]'")

    monkeypatch.setattr("lightsae.evaluation.trainer_callback.add_probes", missing)
    assert main(["test", "--config", str(settings), "--run_dir", str(trained)]) == 0
    result = EvaluationResult.load(trained)
    assert "probe_auc" not in result.scalars and "purity_binary" in result.scalars
    assert result.about["left_out"] == [
        "sklearn is not installed: pip install 'lightsae[evaluation]': no probes"
    ]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(trained: Path, settings: Path, other: Path) -> None:
    words = ["test", "--config", str(settings), "--run_dir", str(trained)]
    words += [f"--evaluation.embeddings=[{other}]", "--evaluation.probes=false"]
    assert main(words) == 0
    one = EvaluationResult.load(trained)
    assert finish(*start_pair(*words)) == [0, 0]
    two = EvaluationResult.load(trained)
    assert two.about["rows"] == one.about["rows"] == 20
    # The regularizer's mask is of the latents that are active in a batch, of both processes.
    for name in ("loss", "penalty"):
        assert two.scalars.pop(name) == pytest.approx(one.scalars.pop(name), rel=0.1)
    # Codes are float32, and rounded otherwise in batches of another size.
    assert two.scalars == pytest.approx(one.scalars, rel=1e-5)
    assert torch.equal(two.latents["top_samples"], one.latents["top_samples"])


@pytest.mark.slow
def test_under_torchrun_two_processes_write_what_one_writes(
    trained: Path, settings: Path, other: Path
) -> None:
    # All rows in one batch, and float64: other sums of the same codes, one mask of active latents.
    words = ["test", "--config", settings, "--run_dir", trained, "--data.init_args.batch_size=32"]
    words += [f"--evaluation.embeddings=[own_input,{other}]", "--trainer.precision=64-true"]
    words += ["--evaluation.probes=false", "--evaluation.rank_rows=9"]
    assert main([str(word) for word in words]) == 0
    one = EvaluationResult.load(trained)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += ["-m", "lightsae", *map(str, words), "--trainer.devices=2"]
    (trained / "evaluation.json").unlink()
    subprocess.run(launch, check=True, env=environment(), timeout=240)
    two = EvaluationResult.load(trained)
    assert two.about["rows"] == one.about["rows"] == 20
    assert two.scalars == pytest.approx(one.scalars, rel=1e-9, nan_ok=True)
    assert two.latents.keys() == one.latents.keys() >= {"ms/own_input", "ms/other", "top_values"}
    # Rows of the mean alone are alike, and which is stronger is a matter of the last bit.
    values = one.latents["top_values"]
    steps = values.diff(dim=1).abs() > 1e-9 * values[:, 1:]
    apart = steps[:, :-1] & steps[:, 1:]
    assert apart.any()
    for name, latents in one.latents.items():
        found = two.latents[name]
        if name in ("top_samples", "top_tokens"):
            found, latents = found[:, 1:-1][apart], latents[:, 1:-1][apart]
        torch.testing.assert_close(found, latents, rtol=1e-9, atol=0, equal_nan=True)
    for name, curve in one.curves.items():
        for column, points in curve.items():
            assert two.curves[name][column] == pytest.approx(points, rel=1e-9, nan_ok=True)


def test_compare_shows_runs_beside_a_baseline(
    trained: Path, settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    words = ["--config", str(settings), "--model.init_args.regularizer=null"]
    for command in ("fit", "test"):
        assert main([command, *words, "--run_dir", str(base), "--evaluation.probes=false"]) == 0
    words = ["test", "--config", str(settings), "--run_dir", str(trained)]
    assert main([*words, "--evaluation.probes=false"]) == 0
    capfd.readouterr()
    assert main(["compare", str(base), str(trained)]) == 0
    text = capfd.readouterr().out
    assert "L1L2Ratio 0.05, d_sae 24, k 3 against baseline, d_sae 24, k 3, seeds 3" in text
    for shown in ("r2_at_2k", "ms_scored_in_both/own_input", "ms_at_equal_rank/own_input"):
        assert shown in text


def test_compare_names_a_run_that_was_not_tested(tmp_path: Path, line: Ask) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    status, text = line("compare", tmp_path / "one", tmp_path / "two")
    assert status == 1
    assert f"{tmp_path}/one/config.yaml is missing" in text
