"""`lightsae validate`, `test` and `predict`."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lightsae.activations import ActivationDataModule
from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import MetricsFile

from ..training.helpers import D_SAE, make_data, write_config, write_shards
from .helpers import Ask, files


@pytest.mark.parametrize("word", ["validate", "test"])
def test_evaluations_go_to_a_file_of_their_own(
    word: str, run: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {name: content for name, content in files(run).items() if "evaluation" not in name}
    assert main([word, "--config", str(config), "--run_dir", str(run)]) == 0
    assert f"{word}: {run}/checkpoints/last.ckpt" in capfd.readouterr().err
    row = MetricsFile(run / "evaluations.jsonl").rows()[-1]
    assert row["step"] == 20
    assert "epoch" not in row
    assert f"{'val' if word == 'validate' else 'test'}/r2" in row
    new = {"evaluations.jsonl", "evaluation.json", "evaluation.safetensors"}
    assert {name: content for name, content in files(run).items() if name not in new} == before


def test_validate_finds_what_fit_found(run: Path, config: Path) -> None:
    assert main(["validate", "--config", str(config), "--run_dir", str(run)]) == 0
    fitted = MetricsFile(run / "metrics.jsonl").rows()[-1]
    found = MetricsFile(run / "evaluations.jsonl").rows()[-1]
    names = [name for name in fitted if name.startswith("val/")]
    assert len(names) == 6
    assert [found[name] for name in names] == pytest.approx([fitted[name] for name in names])


def test_validate_shows_each_metric_once(
    run: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--config", str(config), "--run_dir", str(run)]) == 0
    shown = capfd.readouterr().out
    found = MetricsFile(run / "evaluations.jsonl").rows()[-1]
    for name in found.keys() - {"step"}:
        assert shown.count(f"{name} ") == 1
    assert "Validate metric" not in shown


@pytest.mark.parametrize("word", ["validate", "test"])
def test_metrics_are_shown_only_if_they_are_wanted(
    word: str, run: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(config), "--run_dir", str(run), "--verbose=false"]
    assert main([word, *words]) == 0
    assert capfd.readouterr().out == ""


def test_predict_writes_codes_of_all_rows(run: Path, config: Path) -> None:
    assert main(["predict", "--config", str(config), "--run_dir", str(run)]) == 0
    with h5py.File(run / "codes" / "codes-00000.h5") as file:
        assert file.attrs["rows"] == 200
        assert file.attrs["d_sae"] == D_SAE


def example(after: str) -> str:
    """The first program behind a heading of docs/runs.md."""
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    return text.partition(after)[2].partition("```python\n")[2].partition("```")[0]


def test_the_example_of_the_docs_reads_what_predict_writes(
    run: Path, config: Path, shards: Path
) -> None:
    assert main(["predict", "--config", str(config), "--run_dir", str(run)]) == 0
    program = example("## What `predict` writes")
    assert "runs/quickstart" in program
    found: dict[str, np.ndarray] = {}
    exec(program.replace("runs/quickstart", str(run)), found)
    data = make_data(shards)
    data.setup()
    x = torch.cat([batch.activations for batch in data.predict_dataloader()])
    dense = SparseAutoencoder.load(run / "sae").encode(x).to_dense().detach().numpy()
    assert np.array_equal(found["dense"], dense)
    assert np.array_equal(found["fires"], (dense > 0).mean(axis=0))
    rows = torch.cat([batch.sample_index for batch in data.test_dataloader()])
    assert np.array_equal(found["test"], dense[rows])


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--model.init_args.d_sae=12", "its sae.W_enc is [24, 6], expected [12, 6]"),
        (
            "--model.init_args.selection.init_args.k=5",
            "it was trained with selection {'rule': 'TopK', 'k': 3}",
        ),
    ],
    ids=["d_sae", "k"],
)
@pytest.mark.parametrize("word", ["validate", "test", "predict"])
def test_a_checkpoint_of_another_model_is_refused(
    word: str,
    option: str,
    says: str,
    run: Path,
    config: Path,
    line: Ask,
) -> None:
    status, text = line(word, "--config", config, "--run_dir", run, option)
    assert status == 1
    assert f"{run}/checkpoints/last.ckpt is a checkpoint of another model: {says}" in text


def test_shards_of_another_width_are_refused(
    run: Path, config: Path, tmp_path: Path, line: Ask
) -> None:
    wide = write_shards(tmp_path / "wide", d_in=9)
    status, text = line(
        "test", "--config", config, "--run_dir", run, f"--data.init_args.path={wide}"
    )
    assert status == 1
    assert "sae.W_enc is [24, 6], expected [24, 9]" in text


@pytest.mark.parametrize("word", ["validate", "test", "predict"])
def test_without_a_run_there_is_nothing_to_evaluate(
    word: str, config: Path, tmp_path: Path, line: Ask
) -> None:
    status, text = line(word, "--config", config, "--run_dir", tmp_path)
    assert status == 1
    assert f"{tmp_path}/checkpoints/last.ckpt: no such checkpoint" in text


@pytest.mark.parametrize("word", ["fit", "test"])
def test_a_checkpoint_given_by_name_must_be_there(
    word: str, config: Path, tmp_path: Path, line: Ask
) -> None:
    words = (word, "--config", config, "--run_dir", tmp_path, "--ckpt_path", "/no/such.ckpt")
    assert line(*words) == (1, f"lightsae {word}: error: /no/such.ckpt: no such checkpoint")


@pytest.mark.parametrize("word", ["validate", "test", "predict"])
def test_other_shards_of_the_same_source_are_welcome(
    word: str, run: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ActivationDataModule, "digest", "of other shards", raising=False)
    assert main([word, "--config", str(config), "--run_dir", str(run)]) == 0


def test_shards_of_another_layer_are_refused(tmp_path: Path, line: Ask) -> None:
    folders = [
        write_shards(tmp_path / layer, rows=200, layer=layer) for layer in ("blocks.3", "blocks.5")
    ]
    config = write_config(tmp_path / "config.yaml", folders[0], trainer__max_epochs=1)
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    words = ("--config", config, "--run_dir", run, "--data.init_args.path", folders[1])
    for word in ("validate", "test", "predict"):
        status, text = line(word, *words)
        assert status == 1
        path = run / "checkpoints" / "last.ckpt"
        assert f"{folders[1]}: {path} was trained on layer 'blocks.3', not 'blocks.5'" in text
