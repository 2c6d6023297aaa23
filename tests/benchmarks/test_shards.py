"""The shard benchmark, small: every figure it promises is written."""

import csv
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_figure_is_written_with_machine_and_date(beside, run_here, tmp_path: Path) -> None:
    out = tmp_path / "shards.csv"
    sizes = {"rows": 4096, "d_in": 64, "batch": 256, "buffer": 1024, "rounds": 1, "threads": 1}
    options = [word for name, size in sizes.items() for word in (f"--{name}", size)]
    assert run_here(beside("data.shards"), *options, "--scratch", tmp_path, "--out", out) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["date"] and row["cpu"] for row in rows)
    assert all(float(row["median"]) > 0 for row in rows)
    assert any("memory" in row["metric"] for row in rows)
