"""Whatever is done to a file of any format: one line that names it, nothing executed or written."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS, load_foreign

from .examples import TRANSCODER_FORMATS, example, transcoder_example, write

FILES = [(name, file) for name in FORMATS for file in FORMATS[name].files(example(name))]
STRANGE: list[Any] = ["text", -1, 0, 2**70, 1e300, True, None, [], {}, [[]], {"k": "k"}]
ran = False


class _Runs:
    """Sets a mark where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import tests.interop.test_damaged_files as here; here.ran = True",)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _empty(_: bytes) -> bytes:
    return b""


def _text(_: bytes) -> bytes:
    return b"no such thing " * 9


def _huge_header(content: bytes) -> bytes:
    return struct.pack("<Q", 2**31) + content[8:]


def _nested(_: bytes) -> bytes:
    return b"[" * 100_000


def _list(_: bytes) -> bytes:
    return b"[1, 2]"


def _pickle(_: bytes) -> bytes:
    return pickle.dumps({"W_enc": _Runs()})


def _torch_pickle(_: bytes) -> bytes:
    path = Path(os.environ["PYTEST_TMP"]) / "runs.pt"
    torch.save({"state_dict": _Runs()}, path)
    return path.read_bytes()


def _bomb(_: bytes) -> bytes:
    path = Path(os.environ["PYTEST_TMP"]) / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("archive/data.pkl", "archive/data/0", "W_enc.npy"):
            archive.writestr(name, bytes(2**24))
    return path.read_bytes()


DAMAGES: list[Callable[[bytes], bytes]] = [
    _cut, _empty, _text, _huge_header, _nested, _list, _pickle, _torch_pickle, _bomb,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path_factory.mktemp("scratch")))


def _folder(name: str, folder: Path) -> Path:
    return write(FORMATS[name].files(example(name)), folder)


def _refused(path: Path, name: str) -> str:
    with pytest.raises(LightsaeError) as caught:
        load_foreign(path, name)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert len(message) < 1000
    assert not ran
    return message


def test_the_malicious_files_would_run() -> None:
    global ran
    pickle.loads(_pickle(b""))
    assert ran
    ran = False
    torch.load(io.BytesIO(_torch_pickle(b"")), weights_only=False)
    assert ran
    ran = False


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_damaged_file_is_one_line(
    name: str, file: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    folder = _folder(name, tmp_path)
    path = folder / file
    path.write_bytes(damage(path.read_bytes()))
    _refused(folder, name)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_missing_file_is_one_line(name: str, file: str, tmp_path: Path) -> None:
    folder = _folder(name, tmp_path / "sae")
    (folder / file).unlink()
    _refused(folder, name)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_link_out_of_the_folder_is_not_followed(name: str, file: str, tmp_path: Path) -> None:
    folder = _folder(name, tmp_path / "sae")
    (folder / file).rename(tmp_path / "elsewhere")
    (folder / file).symlink_to(tmp_path / "elsewhere")
    _refused(folder, name)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("weight", ["W_enc", "W_dec"])
@pytest.mark.parametrize("name", FORMATS)
def test_numbers_that_are_none_are_refused(
    name: str, weight: str, value: float, tmp_path: Path
) -> None:
    sae = example(name)
    getattr(sae, weight).data[1, 2] = value
    folder = write(FORMATS[name].files(sae), tmp_path)
    assert "has NaN or infinite values" in _refused(folder, name)


@pytest.mark.parametrize("name", FORMATS)
def test_strange_settings_are_read_or_refused(name: str, tmp_path: Path) -> None:
    _settings_one_by_one(_folder(name, tmp_path), name)


@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_strange_settings_of_a_transcoder_are_read_or_refused(name: str, tmp_path: Path) -> None:
    files = FORMATS[name].files(transcoder_example(name))
    _settings_one_by_one(write(files, tmp_path), name)


def _settings_one_by_one(folder: Path, name: str) -> None:
    for path in folder.glob("*.json"):
        config = json.loads(path.read_text())
        for key in config:
            for value in STRANGE:
                path.write_text(json.dumps(config | {key: value}))
                _read_or_refused(folder, name)


@pytest.mark.parametrize("name", FORMATS)
def test_single_wrong_bytes_are_read_or_refused(name: str, tmp_path: Path) -> None:
    folder, chance = _folder(name, tmp_path), random.Random(0)
    for path in sorted(folder / file for file in FORMATS[name].files(example(name))):
        content = path.read_bytes()
        for _ in range(60):
            wrong = bytearray(content)
            wrong[chance.randrange(min(len(wrong), 2000))] ^= chance.randrange(1, 256)
            path.write_bytes(wrong)
            _read_or_refused(folder, name)
        path.write_bytes(content)


def _read_or_refused(folder: Path, name: str) -> None:
    try:
        load_foreign(folder, name)
    except LightsaeError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
    assert not ran


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_writes_nothing_when_reading_fails(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(name, tmp_path / "theirs")
    for path in (folder / file for file in FORMATS[name].files(example(name))):
        path.write_bytes(_cut(path.read_bytes()))
    words = ["import", str(folder), str(tmp_path / "ours"), "--format", name]
    assert main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "ours").exists()
