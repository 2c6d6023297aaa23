import os
from pathlib import Path

import pytest

from lightsae.activations.extraction.image_sources.file_listing import files_below, is_hidden

HIDDEN = (
    ".DS_Store",
    "._1.jpg",
    "cat/._1.jpg",
    "cat/.thumbnails/1.jpg",
    ".ipynb_checkpoints/1-checkpoint.jpg",
    "__MACOSX/cat/1.jpg",
    "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "lost+found/1.jpg",
    "Thumbs.db",
    "cat/desktop.ini",
)


@pytest.mark.parametrize("name", HIDDEN)
def test_what_a_system_leaves_beside_files_is_hidden(name: str) -> None:
    assert is_hidden(Path(name))


@pytest.mark.parametrize("name", ["cat/1.jpg", "./cat/1.jpg", "../1.jpg", "_1.jpg", "cat/a.DS.jpg"])
def test_other_names_are_not_hidden(name: str) -> None:
    assert not is_hidden(Path(name))
    assert not is_hidden(name)


def test_hidden_files_and_folders_are_not_listed(tmp_path: Path) -> None:
    for name in (*HIDDEN, "cat/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(files_below(tmp_path)) == [tmp_path / "cat/1.jpg"]


def test_a_folder_that_is_asked_for_may_be_hidden_itself(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "1.jpg").touch()
    assert list(files_below(tmp_path / ".cache")) == [tmp_path / ".cache" / "1.jpg"]


@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to(tmp_path / "1.jpg")
    (tmp_path / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "4.jpg").touch()
    (tmp_path / "5.jpg").symlink_to(tmp_path / "4.jpg")
    found = sorted(path.name for path in files_below(tmp_path))
    assert found == ["3.jpg", "4.jpg", "5.jpg"]
