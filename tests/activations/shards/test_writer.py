import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
import torch

from lightsae.activations import Manifest, ShardSet, ShardWriter
from lightsae.activations.shards import shard_file
from lightsae.activations.shards.checked_read import checksum
from lightsae.activations.shards.dtypes import storage
from lightsae.activations.shards.shard_file import INDEX_NAMES, ShardFile
from lightsae.errors import LightsaeError


def _manifest(dtype: str = "float32", **options: object) -> Manifest:
    return Manifest(d_in=4, dtype=dtype, layer="blocks.3", **options)  # type: ignore[arg-type]


def _write(writer: ShardWriter, rows: int = 10, start: int = 0) -> None:
    writer.write(torch.full((rows, 4), float(start)), torch.arange(start, start + rows))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_come_back_as_stored(
    dtype: str, make_shards: Callable[..., Path], all_rows: Callable[[Path], np.ndarray]
) -> None:
    rows = torch.from_numpy(all_rows(make_shards(dtype="float32")))
    rows[:, 0] = 0
    stored = all_rows(make_shards(dtype=dtype, name="other"))
    stored[:, 0] = 0
    assert np.array_equal(stored, rows.to(storage(dtype).torch_dtype).float().numpy())


def test_the_layout_is_the_documented_one(make_shards: Callable[..., Path]) -> None:
    folder = make_shards(rows=50, dtype="bfloat16")
    with h5py.File(folder / "shard-00001.h5") as file:
        assert file["activations"].dtype == np.uint16
        assert file["activations"].attrs["dtype"] == "bfloat16"
        assert file["activations"].chunks == (8, 8)
        assert file["sample_index"][:].tolist() == list(range(40, 50))
        assert file["chunk_hash"].shape == (2,)
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json",
        "shard-00000.h5",
        "shard-00001.h5",
    ]


def test_the_manifest_tells_mean_and_scale(
    make_shards: Callable[..., Path], all_rows: Callable[[Path], np.ndarray]
) -> None:
    folder = make_shards(rows=93)
    rows = all_rows(folder).astype(np.float64)
    manifest = Manifest.load(folder)
    np.testing.assert_allclose(manifest.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(manifest.scale, rows.std(0), rtol=1e-12)
    assert manifest.rows == 93
    assert manifest.complete


def test_a_write_is_never_split_over_shards(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, _manifest(), rows_per_shard=15, chunk_rows=4) as writer:
        for start in range(0, 50, 10):
            _write(writer, 10, start)
    assert [entry.rows for entry in Manifest.load(tmp_path).shards] == [20, 20, 10]


def test_one_row_is_a_shard(tmp_path: Path, all_rows: Callable[[Path], np.ndarray]) -> None:
    with ShardWriter(tmp_path, _manifest()) as writer:
        _write(writer, 1, 7)
    assert all_rows(tmp_path).tolist() == [[7.0] * 4]


def test_no_rows_are_no_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(LightsaeError, match="no row was written"),
        ShardWriter(tmp_path, _manifest()),
    ):
        pass


def test_a_second_writer_continues_after_the_last_whole_shard(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, _manifest(), rows_per_shard=10)
    _write(writer, 10, 0)
    _write(writer, 3, 10)
    writer.abort()
    assert [entry.rows for entry in Manifest.load(tmp_path).shards] == [10]
    assert not Manifest.load(tmp_path).complete
    with ShardWriter(tmp_path, _manifest(), rows_per_shard=10) as writer:
        _write(writer, 10, 10)
    manifest = Manifest.load(tmp_path)
    assert manifest.rows == 20
    assert manifest.mean == [5.0] * 4
    assert manifest.scale == [5.0] * 4


def test_progress_is_stored_with_the_shard_it_belongs_to(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, _manifest(), rows_per_shard=10)
    writer.write(torch.zeros(10, 4), torch.arange(10), progress={"next": 10})
    writer.write(torch.zeros(3, 4), torch.arange(3), progress={"next": 13})
    writer.abort()
    assert Manifest.load(tmp_path).progress == {"next": 10}


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / "shard-00004.h5.tmp").write_bytes(b"half")
    (tmp_path / ".manifest.json.tmp").write_bytes(b"{")
    with ShardWriter(tmp_path, _manifest()) as writer:
        _write(writer)
    assert not list(tmp_path.glob("*.tmp"))


def test_no_rows_are_no_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, _manifest(), rows_per_shard=10) as writer:
        _write(writer, 10)
        _write(writer, 0)
        writer.write(torch.zeros(0, 4), torch.arange(0), progress={"next": 11})
    manifest = Manifest.load(tmp_path)
    assert [entry.rows for entry in manifest.shards] == [10]
    assert manifest.progress == {"next": 11}
    ShardSet(tmp_path).close()


def test_a_writer_that_has_ended_writes_no_more(tmp_path: Path) -> None:
    with (
        pytest.raises(LightsaeError, match="no row was written"),
        ShardWriter(tmp_path, _manifest()) as empty,
    ):
        pass
    with ShardWriter(tmp_path, _manifest()) as writer:
        _write(writer)
        writer.finish()
        with pytest.raises(LightsaeError, match="this writer has ended, open another one"):
            _write(writer)
    for use in (lambda: _write(empty), empty.finish, lambda: _write(writer)):
        with pytest.raises(LightsaeError, match="this writer has ended"):
            use()


def test_a_complete_folder_is_not_written_again(make_shards: Callable[..., Path]) -> None:
    folder = make_shards()
    with pytest.raises(LightsaeError, match="is complete already"):
        ShardWriter(folder, Manifest.load(folder))


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (_manifest("float16"), "dtype = 'float32', this command has 'float16'"),
        (Manifest(d_in=5, dtype="float32", layer="blocks.3"), "d_in"),
        (Manifest(d_in=4, dtype="float32", layer="blocks.4"), "layer"),
        (_manifest(settings={"seed": 2}), "seed = 1, this command has 2"),
        (_manifest(has_labels=True, settings={"seed": 1}), "has_labels"),
    ],
)
def test_a_folder_begun_with_other_settings_is_refused(
    tmp_path: Path, wanted: Manifest, named: str
) -> None:
    writer = ShardWriter(tmp_path, _manifest(settings={"seed": 1}), rows_per_shard=1)
    _write(writer)
    writer.abort()
    with pytest.raises(LightsaeError, match=named):
        ShardWriter(tmp_path, wanted)


def test_a_folder_without_shards_takes_other_settings(tmp_path: Path) -> None:
    ShardWriter(tmp_path, _manifest("float16")).abort()
    with ShardWriter(tmp_path, _manifest("float32")) as writer:
        _write(writer)
    assert Manifest.load(tmp_path).dtype == "float32"


def test_two_writers_cannot_share_a_folder(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, _manifest())
    with pytest.raises(LightsaeError, match="being written by another process"):
        ShardWriter(tmp_path, _manifest())
    writer.abort()
    ShardWriter(tmp_path, _manifest()).abort()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    rows = torch.zeros(3, 4)
    rows[1, 2] = bad
    writer = ShardWriter(tmp_path, _manifest())
    with pytest.raises(LightsaeError, match=r"sample 8, token 5, layer 'blocks.3': activation \[2"):
        writer.write(rows, torch.tensor([7, 8, 9]), torch.tensor([5, 5, 5]))
    writer.abort()


@pytest.mark.parametrize(
    ("dtype", "value", "says"),
    [
        ("float16", 7e4, "is 70000, too large for float16: use dtype float32 or bfloat16$"),
        ("float16", 1e39, r"is 1e\+39, too large for float16$"),
        ("bfloat16", 1e39, r"is 1e\+39, too large for bfloat16$"),
        ("float32", -1e39, r"is -1e\+39, too large for float32$"),
    ],
)
def test_another_dtype_is_offered_where_it_holds_the_value(
    tmp_path: Path, dtype: str, value: float, says: str
) -> None:
    writer = ShardWriter(tmp_path, _manifest(dtype))
    with pytest.raises(LightsaeError, match=f"sample 1, .* {says}"):
        writer.write(torch.tensor([[0.0] * 4, [value] * 4], dtype=torch.float64), torch.arange(2))
    writer.abort()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((torch.zeros(3, 5), torch.arange(3)), "activations"),
        ((torch.zeros(3), torch.arange(3)), "activations"),
        ((torch.zeros(3, 4, dtype=torch.int64), torch.arange(3)), "activations"),
        ((torch.zeros(3, 4), torch.arange(2)), "sample_index"),
        ((torch.zeros(3, 4), torch.zeros(3)), "sample_index"),
        ((torch.zeros(3, 4), torch.arange(3), torch.arange(2)), "token_index"),
        ((torch.zeros(3, 4), torch.arange(3), None, torch.arange(3)), "label"),
    ],
)
def test_wrong_shapes_are_named(tmp_path: Path, arguments: tuple, named: str) -> None:  # type: ignore[type-arg]
    writer = ShardWriter(tmp_path, _manifest())
    with pytest.raises(LightsaeError, match=named):
        writer.write(*arguments)
    writer.abort()


@contextmanager
def _full_after(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(path, full)
        yield


@pytest.mark.parametrize(
    "failing",
    [
        "lightsae.activations.shards.shard_file.ShardFile._flush",
        "lightsae.activations.shards.shard_file.ShardFile.finish",
        "lightsae.activations.shards.folder_lock.os.fsync",
        "lightsae.activations.shards.folder_lock.sync_folder",
        "lightsae.activations.shards.manifest.Manifest.to_json",
    ],
)
def test_a_full_disk_leaves_the_earlier_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    writer = ShardWriter(tmp_path, _manifest(), rows_per_shard=10, chunk_rows=4)
    _write(writer, 10, 0)
    with (
        _full_after(failing, monkeypatch),
        pytest.raises(
            LightsaeError, match=r"shard-00001.h5 \(No space left on device\); the shard before"
        ),
    ):
        _write(writer, 10, 10)
    assert not list(tmp_path.glob("*.tmp"))
    assert Manifest.load(tmp_path).rows == 10
    with ShardWriter(tmp_path, _manifest(), rows_per_shard=10, chunk_rows=4) as writer:
        _write(writer, 10, 10)
    assert len(ShardSet(tmp_path).chunks) == 6


_LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.writer import ShardWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (1000, 9000, 30_000):
    folder = Path(sys.argv[1]) / str(limit)
    writer = ShardWriter(folder, Manifest(d_in=64, dtype="float32"), rows_per_shard=100)
    writer.write(torch.zeros(100, 64), torch.arange(100))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        for _ in range(9):
            writer.write(torch.zeros(30, 64), torch.arange(30))
    except ValueError as error:
        print(type(error).__name__, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
"""


@pytest.mark.slow
def test_a_real_write_that_the_system_refuses(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for limit, line in zip((1000, 9000, 30_000), lines, strict=True):
        assert line.startswith("LightsaeError")
        assert "(File too large); the shard before it is whole" in line
        assert not list((tmp_path / str(limit)).glob("*.tmp"))
        assert Manifest.load(tmp_path / str(limit)).rows == 100


@pytest.mark.parametrize("chunk_rows", [1, 3, 700])
def test_small_chunks_are_what_they_would_be_alone(tmp_path: Path, chunk_rows: int) -> None:
    rows, index = torch.randn(2000, 4), torch.arange(2000)
    with ShardWriter(tmp_path, _manifest(has_labels=True), chunk_rows=chunk_rows) as writer:
        for part in index.split(77):
            writer.write(rows[part], part, part + 1, part + 2)
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        assert file["activations"].chunks == (chunk_rows, 4)
        assert np.array_equal(file["activations"][:], rows.numpy())
        columns = [file[name][:] for name in INDEX_NAMES]
        assert np.array_equal(columns, [index + number for number in range(3)])
        for chunk, start in enumerate(range(0, 2000, chunk_rows)):
            part = slice(start, start + chunk_rows)
            assert file["chunk_hash"][chunk] == checksum(rows[part].numpy())
            assert file["index_hash"][chunk] == checksum(*(column[part] for column in columns))


def test_statistics_of_small_chunks_are_taken_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, resized = Mock(wraps=shard_file.count_norms), Mock(wraps=ShardFile._resize)
    monkeypatch.setattr(shard_file, "count_norms", counted)
    monkeypatch.setattr(ShardFile, "_resize", lambda *words: resized(*words))
    rows = 3 * (512 << 10) // 16
    with ShardWriter(tmp_path, _manifest(), rows_per_shard=rows, chunk_rows=16) as writer:
        for start in range(0, rows, 4096):
            _write(writer, 4096, start)
    assert counted.call_count == 3
    assert resized.call_count == 3


def test_discarding_survives_a_file_that_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ShardFile(tmp_path / "a.h5", 4, "float32", 4, False)
    with _full_after("h5py.File.close", monkeypatch):
        shard.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    message = f"^{tmp_path / name}: {tmp_path}/file is a file, expected a folder$"
    with pytest.raises(LightsaeError, match=message):
        ShardWriter(tmp_path / name, Manifest(d_in=2, dtype="float32"))


def test_a_disk_that_cannot_take_the_first_manifest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Manifest, "save", full)
    theirs, ours = tmp_path, tmp_path / "new"
    for folder in (theirs, ours):
        with pytest.raises(LightsaeError, match=f"^{folder}: cannot be written: No space left on"):
            ShardWriter(folder, Manifest(d_in=2, dtype="float32"))
    assert theirs.exists()
    assert not ours.exists()
    monkeypatch.undo()
    ShardWriter(theirs, Manifest(d_in=2, dtype="float32")).abort()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_in": 4.0}, "d_in is 4.0, expected a positive integer"),
        ({"d_in": "4"}, "d_in is '4', expected a positive integer"),
        ({"d_in": 0}, "d_in is 0, expected a positive integer"),
        ({"layer": 3}, "layer is 3, expected a string"),
        ({"layer": None}, "layer is None, expected a string"),
        ({"has_labels": 1}, "has_labels is 1, expected true or false"),
        ({"classes": [1, 2]}, r"classes is \[1, 2\], expected a list of strings"),
        ({"settings": {"of": Path("here")}}, "settings holds a PosixPath, expected what JSON can"),
        ({"settings": {"rate": float("nan")}}, "settings holds nan, expected what JSON can hold"),
        ({"settings": [1]}, r"settings is \[1\], expected an object"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if type(value) is dict else "",
)
def test_a_manifest_that_could_not_be_read_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    manifest = Manifest(**{"d_in": 4, "dtype": "float32", **changes})
    with pytest.raises(LightsaeError, match=f"^manifest: {message}"):
        ShardWriter(tmp_path / "new", manifest)
    assert not (tmp_path / "new").exists()


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    settings = {"seed": np.int64(3), "rates": np.array([0.5, 1.0])}
    manifest = Manifest(np.int64(4), "float32", classes=np.array(["a", "b"]), settings=settings)  # type: ignore[arg-type]
    with ShardWriter(tmp_path, manifest) as writer:
        writer.write(torch.zeros(3, 4), torch.arange(3), progress={"next": np.int64(3)})
    found = Manifest.load(tmp_path)
    assert (found.d_in, found.classes) == (4, ["a", "b"])
    assert found.settings == {"seed": 3, "rates": [0.5, 1.0]}
    assert found.progress == {"next": 3}


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        ({"next": {1}}, "progress holds a set, expected what JSON can hold"),
        ({"next": float("inf")}, "progress holds inf, expected what JSON can hold"),
        ([1], r"progress is \[1\], expected an object"),
    ],
)
def test_progress_that_could_not_be_stored_is_refused_at_once(
    tmp_path: Path, progress: Any, message: str
) -> None:
    with ShardWriter(tmp_path, _manifest()) as writer:
        _write(writer)
        with pytest.raises(LightsaeError, match=message):
            writer.write(torch.zeros(1, 4), torch.arange(1), progress=progress)
        writer.finish({"next": 10})
    assert Manifest.load(tmp_path).progress == {"next": 10}


@pytest.mark.parametrize(
    ("folder", "manifest", "message"),
    [
        ("", _manifest(), "folder is '', expected the name of one"),
        ("new", {"d_in": 4}, "manifest is a dict, expected a Manifest"),
    ],
)
def test_what_a_writer_is_made_of_is_named(folder: Any, manifest: Any, message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        ShardWriter(folder, manifest)


@pytest.mark.parametrize("size", [0, 1.5, "7"])
@pytest.mark.parametrize("name", ["rows_per_shard", "chunk_rows"])
def test_sizes_of_a_writer_are_named(tmp_path: Path, name: str, size: Any) -> None:
    message = f"^{name} is {size!r}, expected an integer of at least 1"
    with pytest.raises(LightsaeError, match=message):
        ShardWriter(tmp_path, _manifest(), **{name: size})


def test_a_label_that_no_class_has_is_refused(tmp_path: Path) -> None:
    manifest = _manifest(has_labels=True, classes=["cat", "dog"])
    with ShardWriter(tmp_path, manifest) as writer:
        writer.write(torch.zeros(2, 4), torch.arange(2), label=torch.tensor([1, -1]))
        with pytest.raises(LightsaeError, match="sample 7 has label 2, classes has 2 names"):
            writer.write(torch.zeros(2, 4), torch.tensor([6, 7]), label=torch.tensor([0, 2]))
    assert Manifest.load(tmp_path).rows == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", "a run"),
        ("checkpoints/last.ckpt", "a run"),
        ("sae.safetensors", "an autoencoder"),
    ],
)
def test_shards_are_not_begun_among_other_things(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    message = f"^{tmp_path}: holds {content}, expected another folder for shards$"
    with pytest.raises(LightsaeError, match=message):
        ShardWriter(tmp_path, Manifest(d_in=4, dtype="float32"))
    assert path.exists()
    assert not (tmp_path / "manifest.json").exists()
