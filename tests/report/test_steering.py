"""Steerings in a report: table, charts, section of the page, alone and beside runs."""

import json
import re
from pathlib import Path

import pytest

from lightsae.cli import main
from lightsae.interventions.examples.planted_steering import PlantedTask
from lightsae.interventions.steering import (
    GuardLimit,
    Measured,
    SteeringOptions,
    SteeringResult,
    steer,
)
from lightsae.interventions.steering.task import Split
from lightsae.report import ReportOptions, build_report
from lightsae.report.figures.steering_charts import steering_charts
from lightsae.report.steering_summary import (
    explained_choice,
    steering_columns,
    steering_rows,
    steering_table,
)

TIMES = "\u00d7"
NAME = "<script>alert(1)</script>"


class Odd(PlantedTask):
    """A target whose name is markup."""

    target = NAME

    def measure(self, split: Split) -> dict[str, Measured]:
        found = super().measure(split)
        return {NAME: found["alarm"], "useful": found["useful"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steering") / "odd"
    steer(Odd(), path, SteeringOptions([0.25, 1.0], [1, 2], n_random=2, bootstrap=100))
    return path


@pytest.fixture(scope="module")
def result(folder: Path) -> SteeringResult:
    return SteeringResult.load(folder / "steering.json")


def contents(page: str) -> dict:
    return json.loads(re.search(r'id="contents">(.*?)</script>', page, re.DOTALL)[1])


def test_rows_hold_the_numbers_of_both_splits(result: SteeringResult) -> None:
    rows = {(row.name, row.rule): row for row in steering_rows(result)}
    assert list(rows) == [
        ("baseline", ""), ("reconstruction only", ""), ("ranked latents", "chosen"),
        ("random latents 1", "equal damage"), ("random latents 2", "equal damage"),
        ("shuffled labels", "equal damage"), ("raw direction", "equal damage"),
    ]  # fmt: skip
    chosen = rows["ranked latents", "chosen"]
    assert steering_columns(result) == [
        f"{name}, {split}" for name in (NAME, "useful", "damage") for split in ("choice", "test")
    ]
    assert (chosen.point, chosen.is_chosen) == (f"1 {TIMES} 1", True)
    (point,) = result.points_of("ranked latents", "test")
    useful = point.metrics["useful"]
    assert chosen.cells[1] == ("0", "0 to 0")
    assert chosen.cells[3] == (f"{useful.value:.4g}", f"{useful.low:.3g} to {useful.high:.3g}")
    assert chosen.cells[5] == ("0.00", "")
    assert rows["raw direction", "equal damage"].cells[0] == ("\u2013", "")


def test_the_rule_and_the_limits_are_told() -> None:
    limits = {"clean": GuardLimit(rise=0.01), "length": GuardLimit(rise=3, fall=2)}
    told = explained_choice(SteeringResult("accuracy", False, limits))
    assert "the largest accuracy among points" in told
    assert "(clean may rise by 0.01; length may rise by 3 and fall by 2)" in told
    alone = explained_choice(SteeringResult("wer", True, {}))
    assert alone.startswith("Chosen on the split of the choice: the least wer. Equal damage")


def test_a_name_is_no_markup_of_the_terminal() -> None:
    table = steering_table(SteeringResult("[red]wer[/red]", True, {}))
    assert table.title == r"Steering: \[red]wer\[/red] shall fall"


def test_charts_show_every_arm_and_every_number_of_latents(result: SteeringResult) -> None:
    front, target, damage = steering_charts(result)
    assert [series.name for series in front.series] == [
        "baseline", "reconstruction only", "ranked latents", "random latents 1",
        "random latents 2", "shuffled labels", "raw direction",
    ]  # fmt: skip
    entries = list(dict.fromkeys(series.entry for series in front.series))
    assert entries[2:4] == ["ranked latents", "random latents"]
    ranked = front.series[2]
    assert (ranked.x, ranked.y, ranked.labels) == ([0.0], [0.0], ["chosen"])
    for chart, value in ((target, lambda each: each.metrics[NAME].value),
                         (damage, lambda each: each.damage)):  # fmt: skip
        assert [series.name for series in chart.series] == ["1 latent", "2 latents"]
        assert [series.x for series in chart.series] == [[0.25, 1.0]] * 2
        points = result.points_of("ranked latents", "choice")
        assert chart.series[1].y == [value(each) for each in points if each.count == 2]


def test_a_page_of_steerings_alone(folder: Path, result: SteeringResult, tmp_path: Path) -> None:
    page = build_report(ReportOptions([folder], tmp_path / "page.html")).read_text()
    assert NAME not in page
    assert '<h1 id="steering-title">Steering</h1>' in page
    assert "Works: &lt;script&gt;alert(1)&lt;/script&gt; 0.5 to 0" in page
    assert "Ranked latents of layer: 3 (+), " in page
    for part in ('id="compare"', 'id="latents"', "#latents", "Search number"):
        assert part not in re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    charts = contents(page)["charts"]
    assert [chart["name"] for chart in charts] == [
        "steering/0/front", "steering/0/target", "steering/0/damage"
    ]  # fmt: skip
    assert {chart["group"] for chart in charts} == {"Steering"}
    assert [page.count(f"<td>{text}") for text in (f"1 {TIMES} 1", f"1 {TIMES} 0.25")] == [1, 3]


def test_a_section_beside_runs(made, folder: Path, tmp_path: Path) -> None:
    words = ["report", made.baseline, folder, made.reg, "--out", tmp_path / "page.html"]
    assert main([str(word) for word in words]) == 0
    page = (tmp_path / "page.html").read_text()
    assert '<h2 id="steering-title">Steering</h2>' in page
    assert '<a href="#steering">Steering</a>' in page
    assert "2 runs, compared with baseline" in page
    assert 'id="latents"' in page
    names = [chart["name"] for chart in contents(page)["charts"]]
    assert "rank_profile" in names
    assert names[-3:] == ["steering/0/front", "steering/0/target", "steering/0/damage"]


def test_two_steerings_have_their_names(folder: Path, tmp_path: Path) -> None:
    steer(PlantedTask(works=False), tmp_path / "none", SteeringOptions([1.0], [1], bootstrap=100))
    page = build_report(ReportOptions([folder, tmp_path / "none"], tmp_path / "p.html")).read_text()
    assert re.findall("<h3>(.*?)</h3>", page) == ["odd", "none"]
    groups = list(dict.fromkeys(chart["group"] for chart in contents(page)["charts"]))
    assert groups == ["Steering: odd", "Steering: none"]
    assert page.count('<p class="verdict">') == page.count('<p class="verdict loss">') == 1


def test_a_steering_that_is_not_whole_is_told(tmp_path: Path, capfd) -> None:
    (tmp_path / "steering.json").write_text('{"format": 1}')
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 1
    assert "steering.json is not whole" in capfd.readouterr().err


@pytest.mark.slow
def test_figures_are_drawn_and_the_page_complains_of_nothing(chromium, folder, tmp_path) -> None:
    chromium.open(build_report(ReportOptions([folder], tmp_path / "page.html")))
    front = "document.querySelector('[data-chart=\"steering/0/front\"]')"
    chromium.wait_for(f"{front}.querySelectorAll('circle').length >= 7")
    told = f"[...{front}.querySelectorAll('.legend li')].map(each => each.textContent)"
    assert chromium.ask(told) == [
        "baseline", "reconstruction only", "ranked latents", "random latents", "shuffled labels",
        "raw direction",
    ]  # fmt: skip
    assert chromium.ask("document.querySelectorAll('#steering tbody tr').length") == 7
    chromium.resize(390, 844, phone=True)
    assert chromium.ask("document.documentElement.scrollWidth") == 390
