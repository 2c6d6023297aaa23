"""What the tables say is what the result holds."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lightsae.planning.scaling import LeftOut, Run, ScalingResult, fit_scaling
from lightsae.report.scaling.show import show_scaling

from ...planning.scaling.planted import planted


def shown(result: ScalingResult, out: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    show_scaling(result, out, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return " ".join(file.getvalue().split())


@pytest.fixture(scope="module")
def result() -> ScalingResult:
    return fit_scaling(planted(), d_in=768, draws=20)


def test_law_held_out_and_budgets_have_tables(result: ScalingResult) -> None:
    text = shown(result)
    for told in (*result.law.parameters, "n = 65536, predicted", "Budgets", "15 settings, 30 runs",
                 "how to divide a budget"):  # fmt: skip
        assert told in text
    assert f"{result.law.parameters['gamma'].value:.3g}" in text


def test_runs_that_are_left_out_are_named_as_they_are(result: ScalingResult) -> None:
    text = shown(result._replace(left_out=(LeftOut("a[bold]b", "its loss is nan"),)))
    assert "a[bold]b: its loss is nan" in text


def test_an_interval_without_a_bound_says_so(result: ScalingResult) -> None:
    size = result.budgets[0]
    open_ended = size._replace(loss=size.loss._replace(high=float("nan")))
    assert " to ?" in shown(result._replace(budgets=(open_ended,)))


def test_the_figure_is_written(result: ScalingResult, tmp_path: Path) -> None:
    text = shown(result, tmp_path / "new")
    assert "scaling.png" in text
    assert (tmp_path / "new" / "scaling.png").read_bytes()[1:4] == b"PNG"


def test_the_smallest_law_has_tables_and_a_figure(tmp_path: Path) -> None:
    runs = [Run(str(n), n, 4, 0, 1000, n**-0.5 * (1 + n / 1e4)) for n in (32, 64, 128)]
    text = shown(fit_scaling(runs, d_in=8, draws=20), tmp_path)
    assert "one seed each" in text and "predicted from smaller ones" not in text
    assert (tmp_path / "scaling.png").exists()
