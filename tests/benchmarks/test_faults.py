"""benchmarks/faults.py: which faults are tried, and what becomes of one that ends otherwise."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("timm")


@pytest.fixture
def faults(beside: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with faults that take no time."""
    script = beside("faults")
    outcomes = {"a file is gone": script.TOLD, "a kill": script.RESUMED, "a kill too late": "lost"}
    tried = {name: lambda bench, outcome=outcome: outcome for name, outcome in outcomes.items()}
    monkeypatch.setattr(script, "FAULTS", tried | {script.DISK_FULL: script.disk_full})
    monkeypatch.setattr(script, "Bench", lambda *_: None)
    monkeypatch.setattr(script, "KEPT", Path("kept.csv"))
    return script


def test_one_fault_alone_is_tried(
    faults: ModuleType, run_here: Callable[..., int | None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out.csv"
    assert run_here(faults, "--only", "file is gone", "--tries", 3, "--out", out) == 0
    with out.open() as file:
        [row] = csv.DictReader(file)
    assert (row["operation"], row["metric"], row["median"]) == ("a file is gone", faults.TOLD, "3")
    assert run_here(faults, "--only", "file is gone", "--tries", 3) == 0
    assert not Path("kept.csv").exists()


def test_another_outcome_fails(
    faults: ModuleType, run_here: Callable[..., int | None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_here(faults, "--tries", 1) == 1
    with Path("kept.csv").open() as file:
        assert [row["operation"] for row in csv.DictReader(file)] == [
            "a file is gone", "a kill", "a kill too late",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ("nothing like it", "no fault's name contains 'nothing like it'"),
        ("disk is full", "'the disk is full' needs --small_disk"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    only: str, says: str, faults: ModuleType, run_here: Callable[..., int | None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit, match="2"):
        run_here(faults, "--only", only)
    assert says in capsys.readouterr().err
