"""Outcomes of tests are in a file while they run, whatever ends the run."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks.common import GPU_FAILURES, GPU_TESTS, read_rows
from benchmarks.phases import outcomes

from ..conftest import BENCHMARKS


def report(name, when, outcome, text=""):
    return SimpleNamespace(
        nodeid=name, when=when, outcome=outcome, duration=0.5, longreprtext=text,
        failed=outcome == "failed", skipped=outcome == "skipped",
    )  # fmt: skip


def metrics(folder):
    return {row["operation"]: row["metric"] for row in read_rows(folder / GPU_TESTS)}


def test_a_test_is_not_reached_until_it_has_an_outcome(tmp_path, monkeypatch):
    monkeypatch.setattr(outcomes, "SECONDS_BETWEEN_WRITES", 0.0)
    noted = outcomes.Outcomes(tmp_path)
    noted.expect(["a", "b", "c"])
    assert metrics(tmp_path) == dict.fromkeys("abc", "not reached")
    noted.pytest_runtest_logreport(report("a", "setup", "passed"))
    assert metrics(tmp_path)["a"] == "not reached"
    noted.pytest_runtest_logreport(report("a", "call", "passed"))
    noted.pytest_runtest_logreport(report("b", "setup", "skipped"))
    assert metrics(tmp_path) == {"a": "passed", "b": "skipped", "c": "not reached"}
    assert read_rows(tmp_path / GPU_TESTS)[0]["median"] == "1.000"


@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_a_failure_in_any_part_stays_and_is_written_at_once(when, tmp_path):
    noted = outcomes.Outcomes(tmp_path)
    noted.expect(["a"])
    for part in ("setup", "call", "teardown"):
        failed = part == when
        noted.pytest_runtest_logreport(
            report("a", part, "failed" if failed else "passed", "E  wrong" if failed else "")
        )
    assert metrics(tmp_path) == {"a": "failed"}
    assert (tmp_path / GPU_FAILURES).read_text() == "failed: a\nE  wrong\n\n"


def test_a_file_that_cannot_be_imported_is_an_error(tmp_path):
    noted = outcomes.Outcomes(tmp_path)
    noted.pytest_collectreport(report("test_x.py", "", "failed", "no such module"))
    noted.expect(["a"])
    assert metrics(tmp_path) == {"test_x.py": "error", "a": "not reached"}


TESTS = """
import torch
def test_before(): pass
def test_illegal_access(): torch.lost = True
def test_after(): pass
"""
TORCH = """
from types import SimpleNamespace
lost = False
def synchronize():
    if lost:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
cuda = SimpleNamespace(is_available=lambda: True, synchronize=synchronize,
                       get_device_name=lambda: "a GPU")
"""


@pytest.mark.slow
def test_a_lost_device_costs_one_test(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "torch.py").write_text(TORCH)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "benchmarks.phases.outcomes",
               "--outcomes", str(tmp_path / "out"), "-c", "/dev/null", "--rootdir", str(tmp_path),
               "-p", "no:cacheprovider", str(tmp_path)]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PATH": "", "PYTHONPATH": f"{tmp_path}:{BENCHMARKS.parent}"},
    )  # fmt: skip
    found = {
        name.rpartition("::")[2]: outcome for name, outcome in metrics(tmp_path / "out").items()
    }
    expected = {"test_before": "passed", "test_illegal_access": "failed", "test_after": "passed"}
    assert found == expected, done.stdout + done.stderr
