"""The command line: what each word does, and what it says when something given is wrong."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

from lightsae.cli import lightning_main, main
from lightsae.sae import SparseAutoencoder
from lightsae.training import MetricsFile, read_checkpoint

from .training.helpers import D_SAE, write_config, write_shards

torch.set_num_threads(1)

WORDS = ("fit", "validate", "test", "predict", "extract", "demo")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def config(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "config.yaml", shards)


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["fit", "--config", str(config), "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def line(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command; return its status and the one line of its error."""

    def ask(*words: object) -> tuple[int, str]:
        status = main([str(word) for word in words])
        errors = [text for text in capfd.readouterr().err.splitlines() if "error:" in text]
        assert len(errors) == 1, errors
        return status, errors[0]

    return ask


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=["none", "--help", "-h"])
def test_without_a_command_it_lists_them(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: lightsae COMMAND")
    for word in WORDS:
        assert f"  {word} " in printed


def test_a_command_that_there_is_not_is_named_with_those_there_are(
    line: Callable[..., tuple[int, str]],
) -> None:
    status, text = line("fitt")
    assert status == 2
    assert text == f"lightsae: error: no command 'fitt'; there are {', '.join(WORDS)}"


@pytest.mark.parametrize("word", ["fit", "validate", "test", "predict"])
def test_each_command_has_a_help_of_its_own(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([word, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--config", "--run_dir", "--model.help", "--data.help", "--print_config"):
        assert option in printed


def test_the_model_s_own_options_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--model.help", "SAEModule"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "Size of the dictionary. (required, type: int)" in printed
    for option in ("selection", "regularizer", "aux_k", "d_in", "optimizer", "lr_scheduler"):
        assert f"--model.{option}" in printed


def test_print_config_is_a_config(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["fit", *map(str, words), "--print_config"])
        assert caught.value.code == 0
        return capsys.readouterr().out

    once = printed("--config", config)
    assert yaml.safe_load(once)["model"]["init_args"]["d_sae"] == D_SAE
    again = tmp_path / "again.yaml"
    again.write_text(once)
    assert printed("--config", again) == once


def test_fit_leaves_settings_metrics_a_checkpoint_and_the_autoencoder(run: Path) -> None:
    assert set(files(run)) == {
        "config.yaml",
        "metrics.jsonl",
        "checkpoints/last.ckpt",
        "sae/sae.json",
        "sae/sae.safetensors",
    }
    saved = SparseAutoencoder.load(run / "sae").state_dict()
    trained = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(saved[name], trained[f"sae.{name}"]) for name in saved)
    rows = MetricsFile(run / "metrics.jsonl").rows()
    assert [row["step"] for row in rows] == [*range(10), 9, *range(10, 20), 19]


def test_a_finished_run_repeated_changes_nothing(
    run: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files(run)
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    assert files(run) == before
    said = capfd.readouterr().err
    assert f"{run}: going on after step 20" in said
    assert f"{run}: finished after step 20" in said


def test_a_new_run_says_that_it_starts_from_the_beginning(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path), "--trainer.max_epochs=0"]
    assert main(words) == 0
    assert "no checkpoint yet, starting from the beginning" in capfd.readouterr().err


def test_fast_dev_run_writes_nothing(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["--config", str(config), "--run_dir", str(folder), "--trainer.fast_dev_run=true"]
    assert main(["fit", *words]) == 0
    assert not folder.exists()


@pytest.mark.parametrize("word", ["validate", "test"])
def test_evaluations_go_to_a_file_of_their_own(
    word: str, run: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files(run)
    assert main([word, "--config", str(config), "--run_dir", str(run)]) == 0
    assert f"{word}: {run}/checkpoints/last.ckpt" in capfd.readouterr().err
    row = MetricsFile(run / "evaluations.jsonl").rows()[-1]
    assert row["step"] == 20
    assert f"{'val' if word == 'validate' else 'test'}/r2" in row
    assert {**files(run), "evaluations.jsonl": b""} == {**before, "evaluations.jsonl": b""}


def test_validate_finds_what_fit_found(run: Path, config: Path) -> None:
    assert main(["validate", "--config", str(config), "--run_dir", str(run)]) == 0
    fitted = MetricsFile(run / "metrics.jsonl").rows()[-1]
    found = MetricsFile(run / "evaluations.jsonl").rows()[-1]
    names = [name for name in fitted if name.startswith("val/")]
    assert len(names) == 6
    assert [found[name] for name in names] == pytest.approx([fitted[name] for name in names])


def test_predict_writes_codes_of_all_rows(run: Path, config: Path) -> None:
    assert main(["predict", "--config", str(config), "--run_dir", str(run)]) == 0
    with h5py.File(run / "codes" / "codes-00000.h5") as file:
        assert file.attrs["rows"] == 200
        assert file.attrs["d_sae"] == D_SAE


def fit_in(how: str, folder: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    words = ["fit", "--config", str(config), "--run_dir", str(folder)]
    if how == "lightsae":
        return main(words)
    monkeypatch.setattr(sys, "argv", [how, *words])
    if how == "lightning":
        return lightning_main()
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("lightsae", run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("how", ["lightsae", "lightning", "python -m lightsae"])
def test_every_way_to_call_it_does_the_same(
    how: str, run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit_in(how, tmp_path, config, monkeypatch) == 0
    weights = Path("sae") / "sae.safetensors"
    assert (tmp_path / weights).read_bytes() == (run / weights).read_bytes()


def test_the_yaml_also_runs_under_a_bare_lightning_cli(
    run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bare", "fit", "--config", str(config)])
    with pytest.warns(Warning):
        cli = LightningCLI()
    assert cli.trainer.global_step == 20
    expected = SparseAutoencoder.load(run / "sae")
    for name, parameter in expected.state_dict().items():
        assert torch.equal(cli.model.sae.state_dict()[name], parameter), name


@pytest.mark.parametrize("words", [[], ["--help"], ["run", "app.py"]], ids=" ".join)
def test_lightning_without_the_sdk_names_what_it_can_do(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_sdk", None)
    monkeypatch.setattr(sys, "argv", ["lightning", *words])
    assert lightning_main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "fit, validate, test, predict" in said
    assert "lightsae --help" in said


def test_lightning_hands_other_words_to_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    entrypoint: Any = ModuleType("lightning_sdk.cli.entrypoint")
    entrypoint.main_cli = lambda: called.append(sys.argv)
    for name in ("lightning_sdk", "lightning_sdk.cli"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, entrypoint.__name__, entrypoint)
    monkeypatch.setattr(sys, "argv", ["lightning", "run", "app.py"])
    assert lightning_main() == 0
    assert called == [["lightning", "run", "app.py"]]


MODEL = "model__init_args__"
DATA = "data__init_args__"
TOP_K = "lightsae.sae.TopK"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{MODEL}dsae": 3}, ["SAEModule", "'dsae' is not accepted"]),
        ({f"{MODEL}d_sae": "many"}, ['"d_sae"', "Expected a int", "many"]),
        ({f"{MODEL}selection": {"class_path": "lightsae.sae.TopKK"}}, ["selection", "TopKK"]),
        ({f"{MODEL}selection__class_path": "no_such.TopK"}, ["selection", "no_such"]),
        ({f"{MODEL}optimizer__class_path": "torch.optim.Adamm"}, ["optimizer", "Adamm"]),
        ({f"{MODEL}aux_k__k_auxx": 3}, ["aux_k", "k_auxx"]),
        ({"model__class_path": "lightsae.training.SAE"}, ["lightsae.training", "SAE"]),
        ({f"{DATA}bath_size": 3}, ["ActivationDataModule", "'bath_size' is not accepted"]),
        ({"trainer__precision": 17}, ["trainer.precision", "bf16-mixed"]),
        ({"trainer__max_epoch": 17}, ["trainer", "max_epoch"]),
        ({"trainre": 1}, ["trainre"]),
        ({"checkpoint_every": "often"}, ["checkpoint_every", "often"]),
    ],
    ids=lambda value: ".".join(next(iter(value)).split("__")) if isinstance(value, dict) else "",
)
def test_a_config_that_does_not_fit_is_told_by_key_in_one_line(
    changes: dict[str, Any],
    says: list[str],
    shards: Path,
    tmp_path: Path,
    line: Callable[..., tuple[int, str]],
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, **changes)
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 2
    assert text.startswith("lightsae fit: error: ")
    assert all(part in text for part in says), text
    assert "NoneType" not in text
    assert len(text) < 500
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{MODEL}selection__init_args__k": 500}, "k = 500 is larger than d_sae = 24"),
        ({f"{MODEL}selection__init_args__k": 0}, "k must be an integer of at least 1, got 0"),
        ({f"{MODEL}regularizer__init_args__weight": -1}, "weight must be at least 0"),
        ({f"{MODEL}aux_k__dead_after": 0}, "dead_after must be at least 1, got 0"),
        ({f"{MODEL}optimizer__init_args__lr": -1}, "optimizer cannot be made: Invalid learning"),
        ({f"{MODEL}d_in": 7}, "the model has d_in = 7, the activations in"),
        ({f"{DATA}path": "/no/such"}, "/no/such: no such folder of activation shards"),
        ({f"{DATA}batch_size": 0}, "batch_size is 0"),
        ({f"{DATA}val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"trainer__accelerator": "tpu"}, "torch_xla"),
        ({"trainer__max_epochs": -7}, "`max_epochs` must be"),
        ({"trainer__strategy": "sideways"}, "sideways"),
        ({"trainer__limit_train_batches": -3}, "-3"),
        ({"checkpoint_every": 0}, "every_n_steps must be at least 1, got 0"),
    ],
    ids=lambda value: ".".join(next(iter(value)).split("__")) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_be_is_told_in_one_line(
    changes: dict[str, Any],
    says: str,
    shards: Path,
    tmp_path: Path,
    line: Callable[..., tuple[int, str]],
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, **changes)
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 1
    assert text.startswith("lightsae fit: error: ")
    assert says in text


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (None, 2, "File does not exist"),
        ("model: [open", 2, "Problems parsing config"),
        (b"\xff\xfe\x00", 1, "is not text"),
        ("", 2, "Unexpected config"),
        ("just words", 2, "config"),
    ],
    ids=["missing", "broken", "binary", "empty", "no mapping"],
)
def test_a_config_that_cannot_be_read_is_told_in_one_line(
    content: str | bytes | None,
    status: int,
    says: str,
    tmp_path: Path,
    line: Callable[..., tuple[int, str]],
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    found, text = line("fit", "--config", path)
    assert found == status
    assert says in text


@pytest.mark.parametrize("word", ["fit", "test", "predict"])
def test_without_a_config_it_says_what_it_needs(
    word: str, line: Callable[..., tuple[int, str]]
) -> None:
    status, text = line(word)
    assert status == 2
    assert f"{word}.model" in text


def test_an_empty_folder_is_named(
    config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "empty").mkdir()
    path = f"--data.init_args.path={tmp_path / 'empty'}"
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run", path)
    assert status == 1
    assert f"{tmp_path / 'empty'}: has no manifest.json" in text


def test_a_start_that_failed_does_not_stand_in_the_way_of_the_next(
    config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert line(*words, "--data.init_args.path=/no/such")[0] == 1
    assert main([*words, "--trainer.max_steps=2"]) == 0


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--model.init_args.d_sae=12", "model.init_args.d_sae was 24, is 12"),
        ("--trainer.precision=64-true", "trainer.precision was None, is 64-true"),
        ("--seed_everything=4", "seed_everything was 3, is 4"),
        ("--data.init_args.batch_size=8", "data.init_args.batch_size was 16, is 8"),
    ],
)
def test_a_run_with_other_settings_is_not_gone_on_with(
    option: str, says: str, run: Path, config: Path, line: Callable[..., tuple[int, str]]
) -> None:
    before = files(run)
    status, text = line("fit", "--config", config, "--run_dir", run, option)
    assert status == 1
    assert f"{run} holds a run with other settings: {says}; choose another --run_dir" in text
    assert files(run) == before


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
    line: Callable[..., tuple[int, str]],
) -> None:
    status, text = line(word, "--config", config, "--run_dir", run, option)
    assert status == 1
    assert f"{run}/checkpoints/last.ckpt is a checkpoint of another model: {says}" in text


def test_shards_of_another_width_are_refused(
    run: Path, config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    wide = write_shards(tmp_path / "wide", d_in=9)
    status, text = line(
        "test", "--config", config, "--run_dir", run, f"--data.init_args.path={wide}"
    )
    assert status == 1
    assert "sae.W_enc is [24, 6], expected [24, 9]" in text


@pytest.mark.parametrize("word", ["validate", "test", "predict"])
def test_without_a_run_there_is_nothing_to_evaluate(
    word: str, config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    status, text = line(word, "--config", config, "--run_dir", tmp_path)
    assert status == 1
    assert f"{tmp_path}/checkpoints/last.ckpt: no such checkpoint" in text


@pytest.mark.parametrize("word", ["fit", "test"])
def test_a_checkpoint_given_by_name_must_be_there(
    word: str, config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    words = (word, "--config", config, "--run_dir", tmp_path, "--ckpt_path", "/no/such.ckpt")
    assert line(*words) == (1, f"lightsae {word}: error: /no/such.ckpt: no such checkpoint")


def test_a_damaged_checkpoint_is_named(
    config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:999])
    status, text = line(*words)
    assert status == 1
    assert f"{path} is not a readable checkpoint" in text


def test_a_run_folder_that_is_a_file_is_named(
    config: Path, tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "file").write_text("")
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "file")
    assert status == 1
    assert f"{tmp_path / 'file'} cannot be made: File exists" in text


def test_a_shard_that_is_damaged_is_named(
    tmp_path: Path, line: Callable[..., tuple[int, str]]
) -> None:
    folder = write_shards(tmp_path / "shards")
    config = write_config(tmp_path / "config.yaml", folder)
    shard = folder / "shard-00001.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 1
    assert str(shard) in text
