"""A run folder: claimed by the settings of its run, written by one process at a time."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightsae.errors import LightsaeError
from lightsae.runs.run_folder import RunFolder, exclusive

SETTINGS: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 3, "precision": None, "devices": "auto", "num_nodes": 1},
    "model": {"class_path": "SAEModule", "init_args": {"d_sae": 64, "aux_k": None}},
    "data": {"init_args": {"path": "shards", "batch_size": 16}},
    "checkpoint_every": 500,
}


def changed(**changes: Any) -> dict[str, Any]:
    """SETTINGS with values at dotted paths, __ for the dot."""
    settings = yaml.safe_load(yaml.safe_dump(SETTINGS))
    for path, value in changes.items():
        *folders, last = path.split("__")
        target = settings
        for folder in folders:
            target = target[folder]
        target[last] = value
    return settings


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has a checkpoint."""
    run = RunFolder(tmp_path / "run")
    run.claim(SETTINGS)
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    return run


def test_the_settings_of_a_new_run_are_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "new")
    run.claim(SETTINGS)
    assert yaml.safe_load(run.config.read_text()) == SETTINGS
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]


def test_the_same_settings_are_welcome_again(run: RunFolder) -> None:
    before = run.config.read_text()
    run.claim(SETTINGS)
    assert run.config.read_text() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer__max_epochs": 9},
        {"checkpoint_every": 7},
        {"trainer__enable_progress_bar": False},
        {"trainer__max_steps": 7, "trainer__max_time": "00:01:00:00"},
        {"trainer__logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "x"}}},
        {"run_dir": "the same, named differently", "weights_only": True},
        {"trainer__precision": None, "model__init_args__centre": None},
    ],
    ids=["longer", "other checkpoints", "quieter", "a limit", "logger", "names", "none"],
)
def test_what_does_not_make_the_run_may_change(changes: dict[str, Any], run: RunFolder) -> None:
    run.claim(changed(**changes))
    assert yaml.safe_load(run.config.read_text()) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__init_args__d_sae": 32}, "model.init_args.d_sae was 64, is 32"),
        ({"model__init_args__k": 3}, "model.init_args.k was None, is 3"),
        ({"data__init_args__batch_size": 8}, "data.init_args.batch_size was 16, is 8"),
        ({"seed_everything": 1}, "seed_everything was 0, is 1"),
        ({"trainer__precision": "64-true"}, "trainer.precision was None, is 64-true"),
        ({"trainer__devices": 2}, "trainer.devices was auto, is 2"),
        ({"trainer__limit_train_batches": 3}, "trainer.limit_train_batches was None, is 3"),
        ({"trainer__overfit_batches": 3}, "trainer.overfit_batches was None, is 3"),
        ({"trainer__strategy": "ddp"}, "trainer.strategy was None, is ddp"),
        ({"trainer__deterministic": True}, "trainer.deterministic was None, is True"),
        ({"trainer__callbacks": ["Timer"]}, "trainer.callbacks was None, is ['Timer']"),
        ({"trainer__val_check_interval": 3}, "trainer.val_check_interval was None, is 3"),
        ({"trainer__what_comes_next": 3}, "trainer.what_comes_next was None, is 3"),
        ({"trainer__gradient_clip_val": 1.0}, "trainer.gradient_clip_val was None, is 1.0"),
        ({"model__init_args__aux_k": {"k_aux": 4}}, "model.init_args.aux_k.k_aux was None, is 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_settings_are_refused_each_with_both_values(
    changes: dict[str, Any], message: str, run: RunFolder
) -> None:
    with pytest.raises(LightsaeError) as caught:
        run.claim(changed(**changes))
    assert str(run.path) in str(caught.value)
    assert message in str(caught.value)
    assert "choose another --run_dir" in str(caught.value)


def test_a_start_that_left_no_checkpoint_claims_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.claim(SETTINGS)
    run.claim(changed(data__init_args__path="the right one"))
    assert yaml.safe_load(run.config.read_text())["data"]["init_args"]["path"] == "the right one"


@pytest.mark.parametrize(
    "content",
    [b"a: [", b"", b"- 1", b"\x00", b"\xff\xfe"],
    ids=["broken", "empty", "list", "nul", "binary"],
)
def test_settings_that_cannot_be_read_are_named(content: bytes, run: RunFolder) -> None:
    run.config.write_bytes(content)
    with pytest.raises(LightsaeError, match=str(run.config)):
        run.claim(SETTINGS)


def test_a_checkpoint_whose_settings_are_lost_is_refused(run: RunFolder) -> None:
    run.config.unlink()
    with pytest.raises(LightsaeError) as caught:
        run.claim(SETTINGS)
    assert f"{run.config} is missing: nothing tells the settings of" in str(caught.value)
    assert not run.config.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LightsaeError, match=r"file/config\.yaml cannot be written"):
        RunFolder(tmp_path / "file").claim(SETTINGS)
    with (
        pytest.raises(LightsaeError, match="file/run cannot be made: Not a directory"),
        exclusive(tmp_path / "file" / "run"),
    ):
        pass


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(LightsaeError, match="is being written by another process"),
        exclusive(tmp_path),
    ):
        pass
    with exclusive(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    kept = [tmp_path / "config.yaml", tmp_path / "checkpoints" / "last.ckpt", tmp_path / ".note"]
    left = [tmp_path / ".config.yaml.12.tmp", tmp_path / "checkpoints" / ".last.ckpt.12.tmp"]
    for path in kept + left:
        path.touch()
    with exclusive(tmp_path):
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def placed(path: Any) -> dict[str, Any]:
    return changed(data__init_args__path=path)


def begun(path: Any, folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.claim(placed(path))
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    return run


@pytest.mark.parametrize("before", ["shards", "./shards", "{here}/shards", "link", "$HERE/shards"])
@pytest.mark.parametrize("now", ["shards", "../here/shards", "{here}/shards", "link", "~/shards"])
def test_one_folder_by_two_names_is_one_folder(
    before: str, now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "shards").mkdir(parents=True)
    (here / "link").symlink_to("shards")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HERE", str(here))
    monkeypatch.setenv("HOME", str(here))
    run = begun(before.format(here=here), tmp_path / "run")
    run.claim(placed(now.format(here=here)))
    Path("other").mkdir()
    with pytest.raises(LightsaeError, match=r"data.init_args.path was .*, is other"):
        run.claim(placed("other"))


def test_a_folder_within_a_list_may_have_another_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("best").mkdir()
    run = RunFolder(tmp_path / "run")
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "best"}}]
    run.claim(changed(trainer__callbacks=callbacks))
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    callbacks[0]["init_args"] = {"dirpath": str(tmp_path / "best")}
    run.claim(changed(trainer__callbacks=callbacks))
    with pytest.raises(LightsaeError, match=r"trainer\.callbacks was"):
        run.claim(changed(trainer__callbacks=[*callbacks, "Timer"]))


def test_a_setting_that_is_no_path_is_not_compared_as_one(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("32-true").mkdir()
    Path("16-mixed").symlink_to("32-true")
    run.config.write_text(yaml.safe_dump(changed(trainer__precision="32-true")))
    with pytest.raises(LightsaeError, match=r"trainer\.precision was 32-true, is 16-mixed"):
        run.claim(changed(trainer__precision="16-mixed"))


def test_a_name_that_is_a_number_is_the_same_name(tmp_path: Path) -> None:
    run = begun(2024, tmp_path / "run")
    run.claim(placed("2024"))
    with pytest.raises(LightsaeError, match="path was 2024, is 2025"):
        run.claim(placed("2025"))


def test_where_the_shards_lie_may_change_if_the_checkpoint_tells_them_apart(
    tmp_path: Path,
) -> None:
    run = begun("/scratch/a", tmp_path / "run")
    run.claim(placed("/scratch/b"), has_digest=True)
    with pytest.raises(LightsaeError, match="path was /scratch/a, is /scratch/b"):
        run.claim(placed("/scratch/b"))
    settings = placed("/scratch/b")
    settings["data"]["init_args"]["batch_size"] = 8
    with pytest.raises(LightsaeError, match=r"settings: data.init_args.batch_size was 16, is 8;"):
        run.claim(settings, has_digest=True)


def test_settings_of_an_earlier_version_are_completed_before_they_are_compared(
    run: RunFolder,
) -> None:
    newer = changed(model__init_args__added_since="its default")
    with pytest.raises(LightsaeError, match="added_since was None, is its default"):
        run.claim(newer)

    def complete(settings: dict[str, Any]) -> dict[str, Any]:
        settings["model"]["init_args"].setdefault("added_since", "its default")
        return settings

    run.claim(newer, complete=complete)
    newer["model"]["init_args"]["added_since"] = "another"
    with pytest.raises(LightsaeError, match="added_since was its default, is another"):
        run.claim(newer, complete=complete)


@pytest.mark.parametrize(
    ("name", "content"), [("shard-00000.h5", "shards"), ("sae.safetensors", "an autoencoder")]
)
def test_a_run_is_not_begun_among_other_things(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    message = f"^{tmp_path}: holds {content}, expected another folder for a run$"
    with pytest.raises(LightsaeError, match=message):
        RunFolder(tmp_path).claim(SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_that_was_begun_among_shards_goes_on(run: RunFolder) -> None:
    (run.path / "shard-00000.h5").touch()
    before = run.config.read_bytes()
    run.claim(SETTINGS)
    assert run.config.read_bytes() == before
