"""`lightsae fit`: what it leaves, says and refuses."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightsae.activations import ActivationDataModule
from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import AtomicCheckpointIO, MetricsFile, read_checkpoint

from ..training.helpers import write_config, write_shards
from .helpers import Ask, files


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
    assert said == f"{run}: nothing left to do, finished after step 20\n"


def test_a_new_run_says_that_it_starts_from_the_beginning(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path), "--trainer.max_steps=1"]
    assert main(words) == 0
    assert "no checkpoint yet, starting from the beginning" in capfd.readouterr().err


def test_fast_dev_run_writes_nothing(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["--config", str(config), "--run_dir", str(folder), "--trainer.fast_dev_run=true"]
    assert main(["fit", *words]) == 0
    assert not folder.exists()


def test_an_empty_folder_is_named(config: Path, tmp_path: Path, line: Ask) -> None:
    (tmp_path / "empty").mkdir()
    path = f"--data.init_args.path={tmp_path / 'empty'}"
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run", path)
    assert status == 1
    assert f"{tmp_path / 'empty'}: has no manifest.json" in text


def test_a_start_that_failed_does_not_stand_in_the_way_of_the_next(
    config: Path, tmp_path: Path, line: Ask
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
    option: str, says: str, run: Path, config: Path, line: Ask
) -> None:
    before = files(run)
    status, text = line("fit", "--config", config, "--run_dir", run, option)
    assert status == 1
    assert f"{run} holds a run with other settings: {says}; choose another --run_dir" in text
    assert files(run) == before


def test_a_damaged_checkpoint_is_named(config: Path, tmp_path: Path, line: Ask) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:999])
    status, text = line(*words)
    assert status == 1
    assert f"{path} is not a readable checkpoint" in text


def test_a_run_folder_that_is_a_file_is_named(config: Path, tmp_path: Path, line: Ask) -> None:
    (tmp_path / "file").write_text("")
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "file")
    assert status == 1
    assert f"{tmp_path / 'file'} cannot be made: File exists" in text


def test_a_shard_that_is_damaged_is_named(tmp_path: Path, line: Ask) -> None:
    folder = write_shards(tmp_path / "shards")
    config = write_config(tmp_path / "config.yaml", folder)
    shard = folder / "shard-00001.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    status, text = line("fit", "--config", config, "--run_dir", tmp_path / "run")
    assert status == 1
    assert str(shard) in text


def test_nothing_is_said_of_going_on_before_it_is_true(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    capfd.readouterr()
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({**read_checkpoint(path), "loops": {}}, path)
    assert main(words) == 1
    said = capfd.readouterr().err.splitlines()
    assert said == [
        f"lightsae fit: error: {path} is nothing to go on from: it has no loops.fit_loop"
    ]


def test_a_run_whose_settings_are_lost_is_not_gone_on_with(
    config: Path, tmp_path: Path, line: Ask
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    (tmp_path / "config.yaml").unlink()
    status, text = line(*words)
    assert status == 1
    assert f"{tmp_path / 'config.yaml'} is missing" in text


def test_other_shards_in_the_same_place_are_noticed(
    config: Path, shards: Path, tmp_path: Path, line: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    monkeypatch.setattr(ActivationDataModule, "digest", "what they were", raising=False)
    assert main([*words, "--trainer.max_steps=2"]) == 0
    before = files(tmp_path)
    monkeypatch.setattr(ActivationDataModule, "digest", "what they are", raising=False)
    status, text = line(*words)
    assert status == 1
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert f"{shards}: {path} was trained on other shards (digest 'what they were'" in text
    assert files(tmp_path) == before
    monkeypatch.setattr(ActivationDataModule, "digest", "what they were")
    assert main(words) == 0


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_is_given_as_a_file(
    name: str, config: Path, tmp_path: Path, line: Ask
) -> None:
    words = ("--config", config, "--run_dir", tmp_path, "--ckpt_path", name)
    for word in ("fit", "test"):
        status, text = line(word, *words)
        assert status == 1
        assert f"--ckpt_path must be a file, got '{name}'" in text


STOP = {
    "class_path": "EarlyStopping",
    "init_args": {"monitor": "val/loss", "stopping_threshold": 1e9},
}


def test_a_run_that_was_stopped_early_stays_stopped(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, trainer__callbacks=[STOP])
    run = tmp_path / "run"
    words = ["fit", "--config", str(config), "--run_dir", str(run)]
    assert main(words) == 0
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"{run}: finished after step 10, stopped early: Stopping threshold")
    before = files(run)
    assert main(words) == 0
    assert files(run) == before
    assert capfd.readouterr().err == said.replace("finished", "nothing left to do, finished") + "\n"


def test_without_checkpointing_there_is_no_checkpoint_and_no_going_on(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path), "--trainer.max_steps=3"]
    for _ in range(2):
        assert main([*words, "--trainer.enable_checkpointing=false"]) == 0
        assert "keeps no checkpoint, starting from the beginning" in capfd.readouterr().err
    assert {"metrics.jsonl", "sae/sae.json"} < set(files(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_barebones_trains_and_logs_nothing(shards: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        shards,
        trainer={"accelerator": "cpu", "devices": 1, "max_epochs": 1, "barebones": True},
    )
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 0
    assert set(files(tmp_path / "run")) == {
        "config.yaml",
        "sae/sae.json",
        "sae/sae.safetensors",
    }


def test_further_checkpoints_lie_beside_the_last(shards: Path, tmp_path: Path) -> None:
    best = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss"}}
    config = write_config(tmp_path / "config.yaml", shards, trainer__callbacks=[best])
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    assert main([*words, "--trainer.max_epochs=1"]) == 0
    assert main(words) == 0
    found = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert len(found) == 2
    assert found[0].startswith("epoch=") and found[1] == "last.ckpt"


def test_a_run_goes_on_with_a_copy_of_its_shards(
    config: Path, shards: Path, tmp_path: Path, line: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ["fit", "--config", str(config), "--run_dir", str(run)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    copied = shutil.copytree(shards, tmp_path / "node" / "shards")
    other = write_shards(tmp_path / "other", dtype="float16")
    monkeypatch.chdir(tmp_path)
    path = "--data.init_args.path"
    status, text = line(*words, path, other)
    assert status == 1
    assert "was trained on other shards" in text
    assert main([*words, path, "node/shards", "--trainer.max_steps=4"]) == 0
    assert main([*words, path, str(copied), "--trainer.max_steps=6"]) == 0
    assert main([*words, "--trainer.max_steps=7"]) == 0


def test_settings_that_a_run_of_an_earlier_version_does_not_have_are_at_their_defaults(
    config: Path, tmp_path: Path, line: Ask
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    written = tmp_path / "config.yaml"
    settings = yaml.safe_load(written.read_text())
    del settings["model"]["init_args"]["normalization"], settings["data"]["init_args"]["verify"]
    written.write_text(yaml.safe_dump(settings))
    status, text = line(*words, "--data.init_args.verify=false")
    assert status == 1
    assert "data.init_args.verify was True, is False" in text
    assert main([*words, "--trainer.max_steps=3"]) == 0


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--trainer.check_val_every_n_epoch=2", "trainer.check_val_every_n_epoch was 1, is 2"),
        ("--trainer.limit_train_batches=3", "trainer.limit_train_batches was None, is 3"),
        ("--trainer.callbacks=Timer", "trainer.callbacks.class_path was None, is "),
        ("--trainer.num_sanity_val_steps=1", "trainer.num_sanity_val_steps was 0, is 1"),
    ],
)
def test_settings_that_the_help_leaves_out_are_part_of_the_run_too(
    option: str, says: str, run: Path, config: Path, line: Ask
) -> None:
    before = files(run)
    status, text = line("fit", "--config", config, "--run_dir", run, option)
    assert status == 1
    assert says in text
    assert files(run) == before


def test_the_settings_of_a_run_are_all_written(shards: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml", shards, trainer__val_check_interval=0.5, trainer__max_steps=1
    )
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 0
    trainer = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]
    assert (trainer["val_check_interval"], trainer["num_sanity_val_steps"]) == (0.5, 0)
    assert main(["fit", "--config", str(tmp_path / "run" / "config.yaml")]) == 0


def test_a_run_of_an_earlier_version_that_kept_fewer_settings_goes_on(
    shards: Path, tmp_path: Path, line: Ask
) -> None:
    config = write_config(
        tmp_path / "config.yaml", shards, trainer__val_check_interval=0.5, trainer__max_steps=1
    )
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]
    assert main(words) == 0
    written = tmp_path / "run" / "config.yaml"
    settings = yaml.safe_load(written.read_text())
    shown = ("accelerator", "devices", "max_epochs", "max_steps", "precision")
    settings["trainer"] = {key: settings["trainer"].get(key) for key in shown}
    written.write_text(yaml.safe_dump(settings))
    assert main([*words, "--trainer.max_steps=2"]) == 0
    status, text = line(*words, "--trainer.precision=64-true")
    assert (status, "trainer.precision was None, is 64-true" in text) == (1, True)


def test_a_run_that_was_moved_keeps_its_best_checkpoint(shards: Path, tmp_path: Path) -> None:
    best = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss", "save_top_k": 1}}
    config = write_config(tmp_path / "config.yaml", shards, trainer__callbacks=[best])
    for name in ("stays", "goes"):
        words = ["fit", "--config", str(config), "--run_dir", str(tmp_path / name)]
        assert main([*words, "--trainer.max_epochs=1"]) == 0
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "goes").rename(tmp_path / "elsewhere" / "came")
    for run in (tmp_path / "stays", moved):
        assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    found, expected = (
        {path.name for path in (run / "checkpoints").iterdir()}
        for run in (moved, tmp_path / "stays")
    )
    assert len(expected) == 2
    assert found == expected
