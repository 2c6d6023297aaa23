"""An extraction that was begun: gone on with, or refused if something changed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lightsae.activations import (
    Manifest,
)
from lightsae.activations.extraction.layer_folder import LayerFolder
from lightsae.activations.shards.writer import ShardWriter
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise

from .extractions import contents, extract_folder, extract_noise, save_picture


@pytest.mark.parametrize("fails_after", range(0, 7))
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    extract_noise(tmp_path / "whole", bad=(3, 11), on_error="skip")
    real, calls = ShardWriter.write, 0

    def write(self: ShardWriter, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > fails_after:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "write", write)
        extract_noise(tmp_path / "cut", bad=(3, 11), on_error="skip")
    extract_noise(tmp_path / "cut", bad=(3, 11), on_error="skip")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_complete_folder_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = extract_noise(tmp_path)
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    assert extract_noise(tmp_path) == first
    assert "already complete, 160 rows" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layer": "patches"}, "layer = 'tokens', this command has 'patches'"),
        ({"tokens": "all"}, "tokens"),
        ({"dtype": "float16"}, "dtype"),
        ({"seed": 1}, "seed = 0, this command has 1"),
        ({"batch_size": 7}, "batch_size"),
        ({"count": 41}, "its images changed since .* was begun with them .*40.*, now .*41"),
        ({"rows_per_shard": 9}, "rows_per_shard"),
    ],
)
def test_a_folder_of_another_command_is_refused(tmp_path: Path, options: Any, named: str) -> None:
    extract_noise(tmp_path)
    with pytest.raises(LightsaeError, match=named):
        extract_noise(tmp_path, **options)


@pytest.mark.parametrize("fails_after", [0, 2, 4])
def test_an_interrupted_run_skips_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    options: dict[str, Any] = {"dtype": "float16", "on_error": "skip", "large": (3, 11, 30)}
    extract_noise(tmp_path / "whole", **options)
    _cut(tmp_path / "cut", monkeypatch, fails_after, **options)
    extract_noise(tmp_path / "cut", **options)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("finished", [True, False], ids=["complete", "interrupted"])
def test_a_folder_of_images_that_changed_is_refused(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    out = tmp_path / "out"
    if finished:
        extract_folder(pictures, out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ShardWriter, "finish", _interrupt)
            extract_folder(pictures, out)
        assert Manifest.load(out).shards
    before = contents(out)
    save_picture(pictures / "a" / "0.png", seed=99)
    message = f"^{pictures}: its images changed since {out} was begun with them "
    with pytest.raises(LightsaeError, match=message) as caught:
        extract_folder(pictures, out)
    assert "\n" not in str(caught.value)
    assert contents(out) == before


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_folder_of_images_may_move(tmp_path: Path, pictures: Path) -> None:
    first = extract_folder(pictures, tmp_path / "out")
    moved = pictures.rename(tmp_path / "moved")
    assert extract_folder(moved, tmp_path / "out") == first


@pytest.mark.parametrize("finished", [True, False], ids=["complete", "interrupted"])
@pytest.mark.parametrize("labelled", [True, False], ids=["classes", "flat"])
def test_a_folder_that_was_begun_when_fewer_files_were_read_goes_on_with_those(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: bool,
    labelled: bool,
) -> None:
    if not labelled:
        for path in pictures.glob("*/*"):
            path.rename(pictures / path.name)
        for name in "ab":
            (pictures / name).rmdir()
    out = tmp_path / "out"
    whole = extract_folder(pictures, tmp_path / "whole")
    if finished:
        extract_folder(pictures, out)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ShardWriter, "finish", _interrupt)
            extract_folder(pictures, out)
    folder = pictures / "a" if labelled else pictures
    for name in ("x.jfif", "y.jpe"):
        save_picture(folder / name, seed=3)
    if labelled:
        save_picture(pictures / "aa" / "x.tga", seed=4)
    assert extract_folder(pictures, out) == whole
    assert contents(out) == contents(tmp_path / "whole")
    count = 3 if labelled else 2
    said = f"{pictures}: goes on with the 14 images and the classes that it was begun with; an ext"
    assert said in capsys.readouterr().err
    more = extract_folder(pictures, tmp_path / "more")
    assert more.settings["images"] == 14 + count
    assert more.settings["data"] != whole.settings["data"]


def test_a_folder_goes_on_that_is_now_mixed_because_more_files_are_read(
    tmp_path: Path, pictures: Path
) -> None:
    whole = extract_folder(pictures, tmp_path / "out")
    save_picture(pictures / "stray.jfif", seed=1)
    assert extract_folder(pictures, tmp_path / "out") == whole
    with pytest.raises(LightsaeError, match=r"stray.jfif is in no subfolder"):
        extract_folder(pictures, tmp_path / "more")


def test_a_class_without_images_changes_no_labels_of_a_folder_that_was_begun(
    tmp_path: Path, pictures: Path
) -> None:
    whole = extract_folder(pictures, tmp_path / "out")
    (pictures / "aa").mkdir()
    assert extract_folder(pictures, tmp_path / "out") == whole
    assert extract_folder(pictures, tmp_path / "more").classes == ["a", "aa", "b"]


def test_a_dataset_that_grew_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract_noise(tmp_path)
    monkeypatch.setattr(Noise, "__len__", lambda self: 41)
    with pytest.raises(LightsaeError, match="was begun with images = 40, this command has 41"):
        extract_noise(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system lists no open files")
def test_workers_do_not_hold_the_lock_of_a_folder_that_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "finish", _interrupt)
        extract_noise(tmp_path)
    real = Noise.__getitem__

    def look(self: Noise, i: int) -> Any:
        if i > 0 and any(os.path.realpath(file) == str(tmp_path) for file in _open_files()):
            raise OSError("a worker has the folder open")
        return real(self, i)

    monkeypatch.setattr(Noise, "__getitem__", look)
    assert extract_noise(tmp_path, workers=2).complete


def _open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


_SLOW = """
import sys, time, torch
torch.set_num_threads(1)
from pathlib import Path
from tests.activations import stand_ins
from tests.activations.extraction.extractions import extract_noise

real = stand_ins.Noise.__getitem__

def slow(self, i):
    time.sleep(0.02)
    return real(self, i)

stand_ins.Noise.__getitem__ = slow
extract_noise(Path(sys.argv[1]), 120, rows_per_shard=25)
"""


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    extract_noise(whole, 120, rows_per_shard=25)
    child = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(cut)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", "kernels"])},
    )
    while child.poll() is None and len(list(cut.glob("shard-?????.h5"))) < 2:
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    extract_noise(cut, 120, rows_per_shard=25)
    assert contents(cut) == contents(whole)


def _cut(out: Path, monkeypatch: pytest.MonkeyPatch, calls: int, **options: Any) -> None:
    """Begin an extraction or go on with it, and stop before one more call."""
    real, left = ShardWriter.write, calls

    def write(self: ShardWriter, *args: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "write", write)
        extract_noise(out, **options)


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_what_another_writer_left_meanwhile_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    extract_noise(tmp_path / "whole")
    if begun:
        _cut(tmp_path / "out", monkeypatch, 3)
    real = LayerFolder._new_writer

    def late(self: LayerFolder) -> ShardWriter:
        monkeypatch.setattr(LayerFolder, "_new_writer", real)
        _cut(tmp_path / "out", monkeypatch, 3)
        return real(self)

    monkeypatch.setattr(LayerFolder, "_new_writer", late)
    with pytest.raises(LightsaeError, match="another process wrote to it while this one began"):
        extract_noise(tmp_path / "out")
    extract_noise(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
