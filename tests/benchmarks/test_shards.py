"""The shard benchmark, small: every figure it promises is written."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_figure_is_written_with_machine_and_date(tmp_path: Path) -> None:
    out = tmp_path / "shards.csv"
    sizes = {"rows": 4096, "d_in": 64, "batch": 256, "buffer": 1024, "rounds": 1, "threads": 1}
    options = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    command = [sys.executable, str(BENCHMARKS / "shards.py"), *options]
    finished = subprocess.run(
        [*command, "--scratch", str(tmp_path), "--out", str(out)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["date"] and row["cpu"] for row in rows)
    assert all(float(row["median"]) > 0 for row in rows)
    assert any("memory" in row["metric"] for row in rows)
