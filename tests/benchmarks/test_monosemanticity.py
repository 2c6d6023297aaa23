"""The benchmark of monosemanticity, small: every figure it promises is written."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(("goal", "status"), [("0", 0), ("1e9", 1)])
def test_every_figure_is_written_and_a_missed_goal_is_a_status(
    goal: str, status: int, tmp_path: Path
) -> None:
    out = tmp_path / "monosemanticity.csv"
    sizes = {"images": 300, "d_sae": 64, "k": 4, "d_embed": 8, "batch": 128, "rounds": 1}
    options = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    command = [sys.executable, str(BENCHMARKS / "monosemanticity.py"), *options, "--goal", goal]
    finished = subprocess.run(
        [*command, "--threads", "1", "--out", str(out)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == status, finished.stderr
    with out.open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    timed = {"one pass", "all pairs", "all pairs / one pass"}
    assert set(rows) == timed | {f"{name}, processor" for name in timed} | {"largest difference"}
    assert all(float(rows[name]["low"]) > 0 for name in timed)
    assert float(rows["largest difference"]["high"]) < 1e-9
    assert all(row["date"] and row["cpu"] for row in rows.values())
