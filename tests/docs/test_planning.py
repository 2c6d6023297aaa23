"""docs/planning.md: its Python runs from top to bottom, and its table is that of the results."""

import csv
from pathlib import Path
from typing import Any

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
RESULTS = PAGE.parents[1] / "benchmarks" / "results" / "plan.csv"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert names["plan"].choice.layout.latent > 1


def test_the_table_has_the_figures_of_the_results() -> None:
    text = PAGE.read_text()
    with RESULTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for metric in ("peak over start", "step_time"):
        figures = [float(row["median"]) for row in rows if row["metric"] == metric]
        for planned, seen in zip(figures[::2], figures[1::2], strict=True):
            assert f"| {planned:.0f} / {seen:.0f} |" in text


def test_the_page_is_linked() -> None:
    assert "(docs/planning.md)" in (PAGE.parents[1] / "README.md").read_text()
