"""HDF5 files that are whole but cannot be looked at here are not called damaged."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightsae.activations.extraction.image_sources.array_files import array_names, open_array
from lightsae.activations.shards.reading.hdf5_files import ObstacleError, open_hdf5
from lightsae.activations.shards.reading.reader import UnreadableShardError
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.activations.tools.open_foreign import open_foreign
from lightsae.activations.tools.verify import verify
from lightsae.errors import LightsaeError
from lightsae.runs.code_writer import read_codes

Shards = Callable[..., Path]
NO_LOCKS = OSError(errno.ENOLCK, "[Errno 37] Unable to open file (unable to lock file, errno = 37)")
ERRORS: dict[str, tuple[Exception, str]] = {
    "permission": (
        PermissionError(errno.EACCES, "Unable to open file (unable to open file, errno = 13)"),
        "Permission denied"),
    "a disk that fails": (OSError(errno.EIO, "Unable to open file (errno = 5)"), "Input/output"),
    "too many files": (OSError(errno.EMFILE, "Unable to open file (errno = 24)"), "Too many open"),
    "a newer format": (
        OSError("Unable to synchronously open file (bad superblock version number)"),
        f"its format is not one that HDF5 {h5py.version.hdf5_version} here knows"),
    "a newer format of a dataset": (
        KeyError("Unable to synchronously open object (bad object header version number)"),
        f"its format is not one that HDF5 {h5py.version.hdf5_version} here knows"),
    "a lock that HDF5 insists on": (
        BlockingIOError(errno.EAGAIN, "Unable to open file (unable to lock file, errno = 11)"),
        "it is locked by another program, or its file system has no locks: "
        "HDF5_USE_FILE_LOCKING=FALSE reads it all the same"),
}  # fmt: skip


@pytest.fixture(params=ERRORS.values(), ids=ERRORS)
def obstacle(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """No file can be opened to read it; why."""
    error, says = request.param
    whole = h5py.File

    def fail(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode == "r":
            raise error
        return whole(path, mode, **options)

    monkeypatch.setattr("h5py.File", fail)
    return str(says)


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    """Lock a file as another program that writes it."""
    handles = []

    def hold(path: Path) -> None:
        handles.append(os.open(path, os.O_RDWR))
        fcntl.flock(handles[-1], fcntl.LOCK_EX)

    yield hold
    for handle in handles:
        os.close(handle)


def test_shards_that_somebody_has_locked_are_read(
    make_shards: Shards, held: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shards()
    held(folder / "shard-00001.h5")
    verify(str(folder))
    assert "are whole" in capsys.readouterr().out
    assert ShardSet(folder).read_index(0).shape[0] == 3


def test_a_file_system_without_locks_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = h5py.File

    def without_locks(path: Path, mode: str = "r", locking: Any = None, **options: Any) -> Any:
        if locking is not False:
            raise NO_LOCKS
        return whole(path, mode, **options)

    with whole(tmp_path / "a.h5", "w") as file:
        file["rows"] = np.ones((3, 2), np.float32)
    monkeypatch.setattr("h5py.File", without_locks)
    assert open_foreign(tmp_path / "a.h5", None, None).shape == (3, 1, 2)
    assert array_names(tmp_path / "a.h5") == ["rows"]
    assert open_array(tmp_path / "a.h5", "rows", "now").shape == (3, 2)


def test_a_file_of_another_program_that_it_has_locked_is_not_read(
    tmp_path: Path, held: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = np.ones((3, 2), np.float32)
    held(path)
    with pytest.raises(LightsaeError, match=f"{path}: .*it is locked by another program"):
        open_foreign(path, None, None)
    with pytest.raises(ObstacleError, match="it is locked by another program"):
        open_hdf5(path)


def test_verify_does_not_call_them_damaged(
    make_shards: Shards, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_shards()
    with h5py.File(folder / "shard-00001.h5", "r+") as file:
        file["activations"][3, 2] += 1
    whole = h5py.File

    def first_fails(path: Path, *args: Any, **options: Any) -> Any:
        if Path(path).name == "shard-00000.h5":
            raise PermissionError(errno.EACCES, "Unable to open file (errno = 13)")
        return whole(path, *args, **options)

    monkeypatch.setattr("h5py.File", first_fails)
    with pytest.raises(LightsaeError) as caught:
        verify(str(folder))
    assert str(caught.value) == (
        f"{folder}: 1 place is not what was written; 1 shard cannot be read here, it may be whole"
    )
    assert "shard-00000.h5: cannot be read here: Permission denied" in capsys.readouterr().err


def test_each_obstacle_is_told_by_verify(make_shards: Shards, obstacle: str) -> None:
    folder = make_shards()
    with pytest.raises(LightsaeError) as caught:
        verify(str(folder))
    assert str(caught.value) == f"{folder}: 3 shards cannot be read here, they may be whole"


def test_each_obstacle_is_told_in_training(make_shards: Shards, obstacle: str) -> None:
    folder = make_shards()
    with pytest.raises(UnreadableShardError) as caught:
        ShardSet(folder)
    assert str(caught.value).startswith(
        f"{folder / 'shard-00000.h5'}: cannot be read here: {obstacle}"
    )


def test_each_obstacle_is_told_of_other_files(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "a.h5"
    path.touch()
    for read in (lambda: read_codes(path), lambda: open_foreign(path, None, None)):
        with pytest.raises(LightsaeError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}")
        assert obstacle in str(caught.value)
    with pytest.raises(ObstacleError, match=obstacle[:30]):
        array_names(path)


@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_what_is_damaged_is_called_so(make_shards: Shards, damage: str) -> None:
    folder = make_shards()
    path = folder / "shard-00000.h5"
    content = path.read_bytes()
    path.write_bytes(b"no" + content[2:] if damage == "garbage" else content[:-100])
    with pytest.raises(LightsaeError, match=f"^{folder}: 1 place is not what was written$"):
        verify(str(folder))
