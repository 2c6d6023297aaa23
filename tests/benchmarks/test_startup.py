"""The benchmark of start-up: processes are measured, one that fails is no measurement."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def startup(beside: Callable[[str], ModuleType]) -> ModuleType:
    return beside("startup")


def test_seconds_and_memory_of_a_process_are_measured(startup: ModuleType) -> None:
    small, large = (startup.measure(["-c", f"b'x' * {size}"]) for size in (1, 200 << 20))
    assert 0 < small.processor < 10
    assert small.wall > 0
    assert 1 < small.memory < 50
    assert large.memory > 200


def test_a_process_that_fails_is_no_measurement(startup: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="exit status 3"):
        startup.measure(["-c", "raise SystemExit(3)"])


def test_every_command_starts_and_every_figure_is_written(
    startup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = ("--help", "shards info", "extract --help", "fit --help")
    every = startup.cases
    monkeypatch.setattr(
        startup, "cases", lambda shards: {name: every(shards)[name] for name in light}
    )
    out = tmp_path / "startup.csv"
    monkeypatch.setattr(sys, "argv", ["startup.py", "--rounds", "1", "--out", str(out)])
    startup.main()
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["operation"] for row in rows} == set(light)
    assert len(rows) == 3 * len(light)
    assert all(float(row["median"]) > 0 and row["date"] and row["cpu"] for row in rows)
