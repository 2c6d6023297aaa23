"""A disk or folder that cannot be written: one line that names it, and nothing lost."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main

from .helpers import Ask, files

Full = Callable[[int, str], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Full:
    """The system refuses to write a file of some name."""

    def refuse(code: int, name: str) -> None:
        opened = Path.open

        def writes(mode: Any) -> bool:
            return isinstance(mode, str) and not mode.startswith("r")

        def path_open(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if name in str(path) and writes(mode):
                raise OSError(code, os.strerror(code), str(path))
            return opened(path, mode, *args, **options)

        monkeypatch.setattr(Path, "open", path_open)

    return refuse


CODES = [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT]


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_a_run_folder_that_became_read_only_is_named(
    code: int, config: Path, tmp_path: Path, line: Ask, refuse: Full
) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    before = files(tmp_path)
    refuse(code, "metrics.jsonl")
    status, text = line(*words)
    assert status == 1
    assert f"{tmp_path / 'metrics.jsonl'} cannot be written: {os.strerror(code)}" in text
    assert files(tmp_path) == before


def test_a_file_of_any_command_that_cannot_be_written_is_named(
    tmp_path: Path, line: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_steps(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sweep.yaml")

    monkeypatch.setattr("lightsae.demo.steps.run_steps", run_steps)
    assert line("demo", "--run_dir", tmp_path) == (
        1, "lightsae demo: error: sweep.yaml: No space left on device"
    )  # fmt: skip


def test_another_error_of_the_system_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_steps(*args: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "sweep.yaml")

    monkeypatch.setattr("lightsae.demo.steps.run_steps", run_steps)
    with pytest.raises(FileNotFoundError):
        main(["demo", "--run_dir", str(tmp_path)])


@pytest.mark.parametrize("name", ["gone", "loop"])
def test_a_run_folder_that_is_a_link_to_nothing_is_named(
    name: str, config: Path, tmp_path: Path, line: Ask
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone" if name == "gone" else link)
    for word in ("fit", "predict"):
        status, text = line(word, "--config", config, "--run_dir", link)
        assert status == 1
        if word == "fit":
            assert f"{link} is a link to a folder that is not there" in text
    assert not (tmp_path / "gone").exists()


def test_a_link_to_a_folder_is_that_folder(config: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    words = ["fit", "--config", str(config), "--trainer.max_steps=2"]
    assert main([*words, "--run_dir", str(tmp_path / "link")]) == 0
    assert main([*words, "--run_dir", str(tmp_path / "real")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "sae" / "sae.json").exists()


@pytest.mark.parametrize(
    "name", ["with space", "ünï/cödé 模型", "-dash", "[x]", "100%", "{x}", "'"]
)
def test_a_run_in_a_folder_of_any_name_goes_on(
    name: str, config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / name
    words = ["fit", "--config", str(config), f"--run_dir={folder}"]
    assert main([*words, "--trainer.max_steps=1"]) == 0
    assert main([*words, "--trainer.max_steps=2"]) == 0
    assert f"{folder}: going on after step 1" in capfd.readouterr().err


def test_a_folder_in_the_place_of_a_file_is_named(config: Path, tmp_path: Path, line: Ask) -> None:
    words = ["fit", "--config", str(config), "--run_dir", str(tmp_path)]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    status, text = line(*words)
    assert (status, text) == (
        1, f"lightsae fit: error: {tmp_path / 'metrics.jsonl'}: Is a directory"
    )  # fmt: skip
