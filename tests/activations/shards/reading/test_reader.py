import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightsae.activations import Manifest, ShardSet
from lightsae.activations.shards.manifest import MANIFEST_NAME
from lightsae.activations.shards.shard_file import shard_digest
from lightsae.errors import LightsaeError

Shards = Callable[..., Path]


def _read_all(folder: Path) -> None:
    shards = ShardSet(folder, max_open=1)
    try:
        for chunk in range(len(shards.chunks)):
            shards.read_index(chunk)
        shards.read_activations(range(len(shards.chunks)))
    finally:
        shards.close()


def _byte_at(path: Path, dataset: str, chunk: int, offset: int) -> int:
    with h5py.File(path) as file:
        width = file[dataset].ndim
        step = file[dataset].chunks[0]
        info = file[dataset].id.get_chunk_info_by_coord((chunk * step,) + (0,) * (width - 1))
        return int(info.byte_offset) + offset


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def _rewrite(path: Path, name: str, values: Any, **options: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=values, **options)


def test_chunks_list_every_row_in_order(make_shards: Shards) -> None:
    shards = ShardSet(make_shards(rows=93))
    assert shards.chunks[:, 2].sum() == 93
    samples = np.concatenate([shards.read_index(i)[0] for i in range(len(shards.chunks))])
    assert samples.tolist() == list(range(93))
    shards.close()


def test_few_files_stay_open(make_shards: Shards) -> None:
    shards = ShardSet(make_shards(rows=200), max_open=2)
    shards.read_activations(range(len(shards.chunks)))
    assert len(shards._open) == 2
    shards.close()
    assert not shards._open


def test_a_file_stays_open_while_a_thread_reads_it(make_shards: Shards) -> None:
    shards = ShardSet(make_shards(rows=200), max_open=1)
    expected = shards.read_activations(range(len(shards.chunks)))
    order = np.random.default_rng(0).integers(len(expected), size=2000)

    def read(part: Any) -> None:
        for chunk in part:
            assert np.array_equal(shards.read_activations([chunk])[0], expected[chunk])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, np.split(order, 4))) == [None] * 4
    assert len(shards._open) == 1
    shards.close()


def test_a_missing_shard_is_named(make_shards: Shards) -> None:
    folder = make_shards()
    (folder / "shard-00001.h5").unlink()
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: is missing"):
        ShardSet(folder)


def test_a_truncated_shard_is_named_before_anything_is_read(make_shards: Shards) -> None:
    path = make_shards() / "shard-00001.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: is truncated, expected 40 rows"):
        ShardSet(path.parent)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all" * 100])
def test_a_file_that_is_not_hdf5_is_named(make_shards: Shards, content: bytes) -> None:
    path = make_shards() / "shard-00000.h5"
    path.write_bytes(content)
    with pytest.raises(LightsaeError, match=r"shard-00000.h5: is not a readable HDF5 file"):
        ShardSet(path.parent)


def test_a_shard_that_is_cut_while_it_is_read_is_named(make_shards: Shards) -> None:
    folder = make_shards(rows=64)
    shards = ShardSet(folder)
    os.truncate(folder / "shard-00001.h5", 4096)
    with pytest.raises(
        LightsaeError, match=r"shard-00001.h5: rows .* cannot be read: the file ends"
    ):
        shards.read_activations(range(len(shards.chunks)))


def test_a_system_without_positioned_reads_reads_the_same(
    make_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = ShardSet(make_shards(rows=60))
    expected = shards.read_activations(range(len(shards.chunks)))
    monkeypatch.delattr(os, "preadv")
    found = shards.read_activations(range(len(shards.chunks)))
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))


def test_a_flipped_bit_in_the_activations_is_named_by_its_rows(make_shards: Shards) -> None:
    path = make_shards() / "shard-00001.h5"
    _flip(path, _byte_at(path, "activations", chunk=2, offset=9))
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: rows 16-23 were altered: .*activat"):
        _read_all(path.parent)


@pytest.mark.parametrize("name", ["sample_index", "token_index", "label"])
def test_a_flipped_bit_in_an_index_is_named_by_its_rows(make_shards: Shards, name: str) -> None:
    path = make_shards() / "shard-00002.h5"
    _flip(path, _byte_at(path, name, chunk=0, offset=8))
    with pytest.raises(LightsaeError, match=r"shard-00002.h5: rows 0-7 were altered"):
        _read_all(path.parent)


def test_every_flipped_bit_is_either_found_or_harmless(make_shards: Shards) -> None:
    folder = make_shards(rows=12, d_in=2, labels=False)
    path = folder / "shard-00000.h5"
    whole = path.read_bytes()
    expected = ShardSet(folder).read_activations([0, 1])
    found = 0
    for at in np.random.default_rng(0).integers(0, len(whole), 150):
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        path.write_bytes(data)
        try:
            _read_all(folder)
        except LightsaeError as error:
            assert "shard-00000.h5" in str(error)
            found += 1
        else:
            rows = ShardSet(folder).read_activations([0, 1])
            assert all(np.array_equal(a, b) for a, b in zip(rows, expected, strict=True))
    assert found > 5


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("activations", np.zeros((40, 8), "f8"), "activations has dtype float64, expected float32"),
        ("activations", np.zeros((40, 7), "f4"), r"shape \(40, 7\), expected \(40, 8\)"),
        ("activations", np.zeros((39, 8), "f4"), r"shape \(39, 8\), expected \(40, 8\)"),
        ("sample_index", np.zeros(40, "i4"), "sample_index has dtype int32, expected int64"),
        ("label", np.zeros(39, "i8"), r"label has shape \(39,\), expected \(40,\)"),
        ("chunk_hash", np.zeros(4, "u8"), r"chunk_hash has shape \(4,\), expected \(5,\)"),
        ("chunk_hash", np.zeros(5, "u8"), "altered: its hashes are not the ones"),
        ("mean", np.ones(8, "f8"), "altered: its hashes are not the ones"),
    ],
    ids=["dtype", "width", "rows", "index-dtype", "label-rows", "hashes", "hash", "mean"],
)
def test_a_dataset_that_differs_from_the_manifest_is_named(
    make_shards: Shards, name: str, values: Any, message: str
) -> None:
    path = make_shards() / "shard-00000.h5"
    chunked = {"chunks": (8, *values.shape[1:])} if name in ("activations", "label") else {}
    _rewrite(path, name, values, **chunked)
    if name == "activations":
        with h5py.File(path, "r+") as file:
            file[name].attrs["dtype"] = "float32"
    with pytest.raises(LightsaeError, match=rf"shard-00000.h5: .*{message}"):
        ShardSet(path.parent)


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (8, 4)}, {"chunks": (8, 8), "compression": "gzip"}]
)
def test_only_plain_chunks_of_whole_rows_are_read(make_shards: Shards, options: Any) -> None:
    path = make_shards() / "shard-00000.h5"
    _rewrite(path, "activations", np.zeros((40, 8), "f4"), **options)
    with h5py.File(path, "r+") as file:
        file["activations"].attrs["dtype"] = "float32"
    with pytest.raises(LightsaeError, match=r"shard-00000.h5: .*(expected whole rows|plain data)"):
        ShardSet(path.parent)


def test_bfloat16_is_not_taken_for_integers(make_shards: Shards) -> None:
    path = make_shards(dtype="bfloat16") / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        del file["activations"].attrs["dtype"]
    with pytest.raises(LightsaeError, match="stored as None, expected bfloat16"):
        ShardSet(path.parent)


@pytest.mark.parametrize("link", [h5py.SoftLink("/label"), h5py.ExternalLink("x.h5", "/a"), None])
def test_a_dataset_lies_in_its_own_file(make_shards: Shards, link: Any) -> None:
    path = make_shards() / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        del file["sample_index"]
        if link is not None:
            file["sample_index"] = link
    with pytest.raises(LightsaeError, match="has no dataset 'sample_index' of its own"):
        ShardSet(path.parent)


def test_a_group_is_no_dataset(make_shards: Shards) -> None:
    path = make_shards() / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        del file["sample_index"]
        file.create_group("sample_index")
    with pytest.raises(LightsaeError, match="'sample_index' is not a dataset"):
        ShardSet(path.parent)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_value_that_is_not_finite_is_named_by_file_and_row(
    make_shards: Shards, dtype: str
) -> None:
    folder = make_shards(dtype=dtype)
    path = folder / "shard-00001.h5"
    forge_nan(folder, path, row=21, column=3)
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: row 21 column 3 is nan, expected a"):
        _read_all(folder)


def forge_nan(folder: Path, path: Path, row: int, column: int) -> None:
    """Put NaN into a shard with all its hashes right, as a careless producer would."""
    from lightsae.activations.shards.checked_read import checksum

    with h5py.File(path, "r+") as file:
        rows = file["activations"][:]
        rows[row, column] = 0x7FC0 if rows.dtype == np.uint16 else np.nan
        file["activations"][:] = rows
        file["chunk_hash"][row // 8] = checksum(rows[row // 8 * 8 : row // 8 * 8 + 8])
        described = {name: file[name][:] for name in ("chunk_hash", "index_hash", "mean", "m2")}
    data = json.loads((folder / MANIFEST_NAME).read_text())
    entry = next(item for item in data["shards"] if item["name"] == path.name)
    del data["checksum"]
    entry["digest"] = shard_digest(entry["rows"], described)
    (folder / MANIFEST_NAME).write_text(json.dumps(data))


def test_a_whole_shard_of_another_folder_is_refused(make_shards: Shards) -> None:
    folder = make_shards()
    shutil.copy(folder / "shard-00000.h5", folder / "shard-00001.h5")
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: was altered"):
        ShardSet(folder)


def test_an_unfinished_folder_is_refused(make_shards: Shards) -> None:
    folder = make_shards()
    manifest = Manifest.load(folder)
    manifest.complete = False
    manifest.save(folder)
    with pytest.raises(LightsaeError, match=r"is incomplete .100 rows so far."):
        ShardSet(folder)
