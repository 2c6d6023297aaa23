import csv
from functools import partial
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:aux_k.dead_after")
def test_a_stack_is_timed_beside_its_members_one_by_one(
    beside, run_here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep, out = beside("steps.sweep"), tmp_path / "sweep.csv"
    monkeypatch.setattr(sweep, "write_shards", partial(sweep.write_shards, rows=2000))
    options = ("--rounds", 1, "--steps", 8, "--batch_sizes", 64, "--out", out)
    assert run_here(sweep, *options) is None, "the exit status of the script is 0"
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
