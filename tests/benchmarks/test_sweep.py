import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sweep.py"


@pytest.mark.slow
def test_a_stack_is_timed_beside_its_members_one_by_one(tmp_path: Path) -> None:
    out = tmp_path / "sweep.csv"
    brief = ["--rounds", "1", "--steps", "8", "--batch_sizes", "64", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *brief], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["operation"], row["metric"]): float(row["median"]) for row in rows}
    assert len(rows) == len(found) == 2 * 7
    for grid in {row["operation"] for row in rows}:
        apart, stacked = found[grid, "one after the other"], found[grid, "stacked"]
        assert found[grid, "speedup"] == pytest.approx(apart / stacked, rel=0.01)
        o, c = found[grid, "o"], found[grid, "c"]
        assert 8 * (o + c) == pytest.approx(apart, rel=0.01)
        assert found[grid, "limit"] == pytest.approx(8 * (o + c) / (o + 8 * c), rel=0.01)
