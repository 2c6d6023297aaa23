import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from lightsae.activations import Manifest
from lightsae.activations.tools.verify import verify
from lightsae.errors import LightsaeError

Shards = Callable[..., Path]


def test_a_whole_folder_passes(make_shards: Shards, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_shards()
    verify(str(folder))
    assert f"{folder}: 100 rows in 3 shards are whole" in capsys.readouterr().out.replace("\n", " ")


def test_every_bad_place_is_named(make_shards: Shards, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_shards()
    (folder / "shard-00000.h5").unlink()
    with h5py.File(folder / "shard-00001.h5", "r+") as file:
        file["activations"][3, 2] += 1
        file["label"][30] += 1
    with pytest.raises(LightsaeError, match=f"^{folder}: 3 places are not what was written$"):
        verify(str(folder))
    told = capsys.readouterr().err
    assert "shard-00000.h5: is missing, but the manifest lists it" in told
    assert "shard-00001.h5: rows 0-7 were altered: the hash of activations differs" in told
    assert "shard-00001.h5: rows 24-31 were altered: the hash of sample_index" in told


@pytest.mark.parametrize("name", ["mean", "scale"])
def test_altered_statistics_are_named(make_shards: Shards, name: str) -> None:
    folder = make_shards()
    path = folder / "manifest.json"
    about = json.loads(path.read_text())
    about[name][2] *= 1.0001
    del about["checksum"]
    path.write_text(json.dumps(about))
    with pytest.raises(LightsaeError, match="1 place is not what was written"):
        verify(str(folder))


def test_altered_norms_are_named(make_shards: Shards) -> None:
    folder = make_shards()
    path = folder / "manifest.json"
    about = json.loads(path.read_text())
    about["norms"] = {"zero": about["rows"]}
    del about["checksum"]
    path.write_text(json.dumps(about))
    with pytest.raises(LightsaeError, match="1 place is not what was written"):
        verify(str(folder))


def test_what_is_there_of_an_unfinished_folder_is_checked(
    make_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shards()
    replace(Manifest.load(folder), complete=False).save(folder)
    verify(str(folder))
    assert "the folder is not complete" in capsys.readouterr().out.replace("\n", " ")


def test_labels_without_a_name_are_named(
    make_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shards()
    replace(Manifest.load(folder), classes=["a", "b"]).save(folder)
    with pytest.raises(LightsaeError, match="3 places are not what was written"):
        verify(str(folder))
    told = capsys.readouterr().err
    says = "manifest.json: classes has 2 names, expected at least 3: there is a label 2 in shard-"
    assert told.count(says) == 3


def test_a_folder_without_rows_takes_no_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Manifest(d_in=(1 << 30) - 1, dtype="float32").save(tmp_path)
    verify(str(tmp_path))
    assert "0 rows in 0 shards are whole" in capsys.readouterr().out.replace("\n", " ")
