import csv
from pathlib import Path

import pytest


def test_time_and_memory_of_both_operations_are_written(
    beside, run_here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    matching, out = beside("dictionaries.matching"), tmp_path / "matching.csv"
    options = ("--latents", 300, "--d_in", 64, "--threads", 1, "--out", out)
    assert run_here(matching, *options) == 0, "what both share is found"
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = {"time", "processor time", "peak over start"}
    assert {(row["operation"], row["metric"]) for row in rows} == {
        (name, metric) for name in ("nearest, both ways", "one to one") for metric in metrics
    }
    assert all(float(row["median"]) > 0 for row in rows if row["unit"] == "s")
    monkeypatch.setattr(matching, "GOAL", -1e9)
    assert run_here(matching, *options) == 1, "a missed goal is a status"
