import re
import sys
from collections import namedtuple
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from lightsae.activations import DataOptions, Manifest, ModelOptions, extract
from lightsae.activations.extraction.layer_folder import LayerFolder
from lightsae.activations.shards.disk_budget import check_room, shard_bytes
from lightsae.errors import LightsaeError

STAND_INS = "tests.activations.stand_ins"
# Of small shards, HDF5's own bytes are more than those of the rows.
WHOLE = 6 * shard_bytes(30, 30, 8, "float32", True) + shard_bytes(20, 30, 8, "float32", True)
Usage = namedtuple("Usage", "total used free")


def _extract(out: Path, layer: list[str] | str = "tokens", **options: Any) -> Manifest:
    manifest, *_ = extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(dataset=f"{STAND_INS}.Noise"),
        layer=layer,
        out=str(out),
        **{"tokens": "all", "dtype": "float32", "batch_size": 6, "rows_per_shard": 30, **options},
    )
    return manifest


def test_more_than_the_budget_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    says = f"max_bytes is {WHOLE - 1} (140.1 kB): {out} would take about {WHOLE} (140.1 kB)"
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}$"):
        _extract(out, max_bytes=WHOLE - 1)
    assert not out.exists()


@pytest.mark.parametrize("rows_per_shard", [30, 70, 100_000])
@pytest.mark.parametrize("layers", ["tokens", ["tokens", "head"]])
def test_shards_take_what_was_told_to_a_tenth(
    tmp_path: Path, rows_per_shard: int, layers: list[str] | str
) -> None:
    with pytest.raises(LightsaeError, match="would take about") as told:
        _extract(tmp_path / "out", layers, rows_per_shard=rows_per_shard, max_bytes=1)
    said = int(re.findall(r"about (\d+)", str(told.value))[0])
    _extract(tmp_path / "out", layers, rows_per_shard=rows_per_shard, max_bytes=said)
    assert 0.85 * said < _size(tmp_path / "out") <= said


def test_a_run_stops_before_the_budget_and_goes_on_with_a_larger_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = WHOLE // 2
    monkeypatch.setattr(
        sys.modules["lightsae.activations.extraction.extraction_job"], "check_room", lambda *_: None
    )
    with pytest.raises(LightsaeError, match=f"stopped at max_bytes = {budget} .* goes on$"):
        _extract(tmp_path, max_bytes=budget)
    assert len(Manifest.load(tmp_path).shards) == 3
    assert not Manifest.load(tmp_path).complete
    assert _size(tmp_path) <= budget
    assert _extract(tmp_path, max_bytes=WHOLE).rows == 200
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.h5"))


def test_a_disk_without_room_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 10**6 - 5000, 5000))
    says = f"^{out}: would take about 140.1 kB more, there are 5.0 kB free: free some space or use "
    with pytest.raises(LightsaeError, match=says):
        _extract(out)
    assert not out.exists()


def test_processes_share_the_room_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 0, 5000))
    check_room(tmp_path, 3000, 600, None)
    with pytest.raises(LightsaeError, match=r"about 7\.2 kB more, there are 5\.0 kB free"):
        check_room(tmp_path, 3000, 600, None, processes=3)


def test_a_budget_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"^max_bytes is 0, expected at least 1$"):
        _extract(tmp_path / "out", max_bytes=0)


def test_a_complete_folder_needs_no_budget(tmp_path: Path) -> None:
    first = _extract(tmp_path)
    assert _extract(tmp_path, max_bytes=1) == first


def test_progress_tells_speed_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    _extract(tmp_path)
    assert re.search(r"40/40 .*images/s \d+\.\d kB", capsys.readouterr().err)


def test_progress_ends_with_the_bytes_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    add = LayerFolder.add

    def slowly(*arguments: Any) -> list[str]:
        sleep(0.2)
        return add(*arguments)

    monkeypatch.setattr(LayerFolder, "add", slowly)
    _extract(tmp_path, batch_size=40)
    told = capsys.readouterr().err
    assert re.search(r"40/40 (\d+ images/s )?\d+\.\d kB", told)
    assert "0 bytes" not in told
