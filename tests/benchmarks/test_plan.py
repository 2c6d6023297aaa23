"""The benchmark of plans: a prediction beside a real run for each size."""

import csv
from pathlib import Path

import pytest

from ..planning.test_plan import RATES


@pytest.mark.slow
def test_every_size_has_both_figures(beside, run_here, monkeypatch, tmp_path: Path) -> None:
    plan, out, rates = beside("planning.plan"), tmp_path / "plan.csv", tmp_path / "rates.json"
    RATES.save(rates)
    monkeypatch.setattr(plan, "SMALL", plan.SMALL[1:])
    words = ("--small", "--threads", 1, "--steps", 3, "--calibration", rates, "--out", out)
    assert run_here(plan, *words) == 1, "tiny runs are all overhead: a missed goal is a status"
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["implementation"], row["metric"]) for row in rows} == {
        (name, metric) for name in ("plan", "fit") for metric in ("peak over start", "step_time")
    }
    assert all(row["sizes"].endswith("regularizer=OffSupportL1") for row in rows)
