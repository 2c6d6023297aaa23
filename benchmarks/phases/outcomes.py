"""A pytest plugin that keeps the outcome of every test in a file while the tests run.

    pytest -p benchmarks.phases.outcomes --outcomes FOLDER

One file has a row per collected test, "not reached" until it has run, another what failing tests
said. Both are there if the run is ended from outside.
"""

import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import GPU_FAILURES, GPU_TESTS, machine, write_rows

SECONDS_BETWEEN_WRITES = 1.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="folder that the outcomes are written to")


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--outcomes")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(SoundDevice())
    elif folder is not None:
        config.pluginmanager.register(Outcomes(folder))


class Outcomes:
    """Collects in the process that sees every report; rows are written at most once a second."""

    def __init__(self, folder: Path) -> None:
        self.path, self.failures = folder / GPU_TESTS, folder / GPU_FAILURES
        self.outcome: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.written = 0.0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tests of this process, if it runs any."""
        self.expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Tests of a process of pytest-xdist: all have the same."""
        self.expect(ids)

    def expect(self, ids: list[str]) -> None:
        """Tests that have not been reached yet."""
        self.outcome = dict.fromkeys(ids, "not reached") | self.outcome
        self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported."""
        if report.failed:
            self.note(report.nodeid, "error", report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call or teardown of a test."""
        name = report.nodeid
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        if report.failed:
            self.note(name, "failed", report.longreprtext)
        elif self.outcome.get(name) != "failed" and (report.when == "call" or report.skipped):
            self.note(name, report.outcome)

    def note(self, name: str, outcome: str, text: str = "") -> None:
        """An outcome, with what a failing test said."""
        self.outcome[name] = outcome
        if text:
            self.failures.parent.mkdir(parents=True, exist_ok=True)
            with self.failures.open("a") as file:
                file.write(f"{outcome}: {name}\n{text}\n\n")
        if text or time.monotonic() > self.written + SECONDS_BETWEEN_WRITES:
            self.write()

    def pytest_sessionfinish(self) -> None:
        """Write what came since the last write."""
        self.write()

    def write(self) -> None:
        """All outcomes so far."""
        device = "cuda" if machine()["gpu"] else "cpu"
        known = {"benchmark": "gpu_tests", "device": device, "unit": "s", "gpu_tests": ""}
        write_rows(self.path, [
            {**known, "operation": name, "metric": outcome,
             "median": f"{self.seconds.get(name, 0.0):.3f}"}
            for name, outcome in self.outcome.items()
        ])  # fmt: skip
        self.written = time.monotonic()


class SoundDevice:
    """Ends a process of pytest-xdist whose GPU context is lost, so that one test is red, not all.

    An illegal access makes every later call of that process fail; pytest-xdist starts another.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Look at the device after each test."""
        result = yield
        torch = sys.modules.get("torch")
        try:
            if torch is not None and torch.cuda.is_available():
                torch.cuda.synchronize()
        except RuntimeError:
            os._exit(1)
        return result
