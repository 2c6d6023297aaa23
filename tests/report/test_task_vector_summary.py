"""Tables and charts of an experiment on a task vector."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lightsae.interventions.task_vectors.experiment import CHOSEN, RULES
from lightsae.interventions.task_vectors.result import TaskVectorResult
from lightsae.report.figures.chart import draw_chart
from lightsae.report.figures.task_vector_charts import injection_charts
from lightsae.report.task_vector_summary import (
    conclusion_lines,
    task_vector_table,
    tell_task_vectors,
)
from tests.interventions.task_vectors.planted_task import experiment


@pytest.fixture(scope="module")
def result() -> TaskVectorResult:
    return experiment()


def test_each_arm_has_a_row_with_intervals_and_z(result: TaskVectorResult) -> None:
    table = task_vector_table(result)
    assert table.row_count == len(result.arms)
    cells = {column.header: [str(cell) for cell in column.cells] for column in table.columns}
    chosen = [arm.name for arm in result.arms].index(CHOSEN)
    assert cells["task"][chosen] == "100.0\n[88.6, 100.0]"
    assert cells["task"][0] == "0.0\n[0.0, 11.4]"
    assert cells["layers"] == ["-", "all", "all", "19 draws", "2", "19 draws", "19"]
    assert cells["energy"][chosen] == "5.0%"
    z = list(table.columns)[4]
    better, same = "+7.75\n<.001", "+0.00\n1.000"
    assert [str(cell) for cell in z.cells] == ["", better, same, "", better, "", same]
    older = replace(result, arms=tuple(replace(arm, flips={}) for arm in result.arms))
    without = list(task_vector_table(older).columns)[4]
    assert [str(cell) for cell in without.cells][1:3] == ["+7.75", "+0.00"]


def test_everything_is_told_on_80_columns(result: TaskVectorResult) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        tell_task_vectors(result, console)
    text = console.export_text()
    assert "specific layers" in text and "2 / 8 = 25.0%" in text
    assert "yes Stethoscope, not scalpel: 5 of its 5 conditions hold" in text
    assert "no  Scalpel: the projected vector helps on the task: +0.0 points" in text
    assert "…" not in text


def test_conclusions_change_with_the_figures(result: TaskVectorResult) -> None:
    base = result.arm("base")
    arms = tuple(
        replace(arm, scores=base.scores) if arm.name == CHOSEN else arm for arm in result.arms
    )
    lines = [str(line) for line in conclusion_lines(replace(result, arms=arms))]
    assert lines[-1] == "no  Stethoscope, not scalpel: 3 of its 5 conditions hold"


def test_charts_begin_at_the_base(result: TaskVectorResult, tmp_path: Path) -> None:
    task, elsewhere = injection_charts(result)
    assert [series.name for series in task.series] == list(RULES)
    assert task.series[0].x == [0, 1, 3] and task.series[0].y == [0, 100, 100]
    assert elsewhere.series[0].y == [100, 100, 100]
    assert draw_chart(task, tmp_path / "task.png").stat().st_size > 10_000
