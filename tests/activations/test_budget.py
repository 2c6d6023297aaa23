import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from lightsae.activations import DataOptions, Manifest, ModelOptions, extract
from lightsae.errors import LightsaeError

STAND_INS = "tests.activations.stand_ins"
ROW = 8 * 4 + 3 * 8
WHOLE = 40 * 5 * ROW
Usage = namedtuple("Usage", "total used free")


def _extract(out: Path, **options: Any) -> Manifest:
    (manifest,) = extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(dataset=f"{STAND_INS}.Noise"),
        layer="tokens",
        out=str(out),
        **{"tokens": "all", "dtype": "float32", "batch_size": 6, "rows_per_shard": 30, **options},
    )
    return manifest


def test_more_than_the_budget_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    says = f"max_bytes is {WHOLE - 1} (11.2 kB): {out} would take about {WHOLE} (11.2 kB)"
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}$"):
        _extract(out, max_bytes=WHOLE - 1)
    assert not out.exists()


def test_a_run_stops_at_the_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    """Of small shards, HDF5's own bytes are more than those of the rows."""
    budget = 3 * WHOLE
    with pytest.raises(LightsaeError, match=f"stopped at max_bytes = {budget} .* goes on$"):
        _extract(tmp_path, max_bytes=budget)
    manifest = Manifest.load(tmp_path)
    assert 0 < len(manifest.shards) < 7
    assert not manifest.complete
    assert _extract(tmp_path, max_bytes=100 * WHOLE).rows == 200
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_a_disk_without_room_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 10**6 - 5000, 5000))
    says = f"^{out}: would take about 11.2 kB more, there are 5.0 kB free: free some space or use "
    with pytest.raises(LightsaeError, match=says):
        _extract(out)
    assert not out.exists()


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
    assert re.search(r"40/40 .*images/s \d+(\.\d+)? (bytes|kB)", capsys.readouterr().err)
