"""Figures: what they show, and that matplotlib draws it."""

import math

import pytest
import torch

from lightsae.evaluation import EvaluationResult
from lightsae.report import (
    SweepPoint,
    draw_chart,
    firing_density,
    k_robustness,
    lambda_sweep,
    ms_against_frequency,
    ms_histogram,
    rank_profile,
    sweep_point,
    training_curves,
    truncated_probe,
)
from lightsae.report.figures.chart import by_setting
from lightsae.report.page.contents import charts_of
from lightsae.report.reading.run_inputs import read_runs

NAN = math.nan


def result(**changed) -> EvaluationResult:
    given = {
        "about": {"d_sae": 4, "rows": 100, "k": 2, "embeddings": [{"name": "cnn"}]},
        "scalars": {"r2": 0.9, "ms_mean/cnn": 0.6, "dead": 1, "ms_undefined/cnn": 2},
        "curves": {
            "rank_profile": {"rank": [1.0, 2.0], "activation": [0.9, NAN]},
            "k_robustness": {"k": [1.0, 2.0], "nmse": [0.5, 0.2], "r2": [0.5, 0.8]},
            "truncated_probe": {"k": [1.0, 4.0], "top1": [0.3, 0.7]},
            "firing_density": {"log10_low": [-3.0, -2.0], "log10_high": [-2.0, -1.0],
                               "count": [2.0, 1.0]},
        },
        "latents": {"ms/cnn": torch.tensor([0.9, NAN, 0.25, 0.1], dtype=torch.float64),
                    "firings": torch.tensor([50, 0, 10, 1])},
    }  # fmt: skip
    return EvaluationResult(**(given | changed))


RESULTS = {"one": result(), "two": result()}


@pytest.mark.parametrize(
    "chart",
    [
        rank_profile(RESULTS), k_robustness(RESULTS), truncated_probe(RESULTS),
        firing_density(RESULTS), ms_histogram(RESULTS, "cnn"), ms_against_frequency(RESULTS, "cnn"),
    ],
    ids=lambda chart: chart.name,
)  # fmt: skip
def test_every_figure_has_a_line_per_run_and_is_drawn(chart, tmp_path):
    assert [series.name for series in chart.series] == ["one", "two"]
    assert [series.colour for series in chart.series] == [0, 1]
    path = draw_chart(chart, tmp_path / "chart.png")
    assert path.read_bytes()[1:4] == b"PNG"


def test_what_they_show():
    (series, _) = ms_against_frequency(RESULTS, "cnn").series
    assert (series.x, series.y) == ([0.5, 0.1, 0.01], [0.9, 0.25, 0.1])
    (series, _) = firing_density(RESULTS).series
    assert (series.x, series.y) == ([-3.0, -2.0, -1.0], [2.0, 1.0])
    (series, _) = ms_histogram(RESULTS, "cnn").series
    assert sum(series.y) == 3
    assert (series.x[0], series.x[-1]) == (0.0, 1.0)


def test_runs_without_a_curve_are_left_out():
    found = rank_profile({"old": result(curves={}), "new": result()})
    assert [(series.name, series.colour) for series in found.series] == [("new", 1)]
    assert not ms_histogram({"old": result(latents={})}, "cnn").has_points
    assert not firing_density({"old": result(curves={})}).has_points


def test_negative_scores_are_in_the_histogram():
    scores = {"ms/cnn": torch.tensor([-0.5, 0.5, 0.5, 0.5])}
    (series,) = ms_histogram({"run": result(latents=scores)}, "cnn").series
    assert series.x[0] == -0.5
    assert sum(series.y) == 4


def test_training_curves_leave_out_what_never_changes_and_thin_out_long_runs():
    history = [{"step": s, "train/r2": s / 1000, "train/l0": 8.0, "epoch": 0, "val/r2": None}
               for s in range(1000)]  # fmt: skip
    (chart,) = training_curves({"run": history})
    assert chart.name == "training/train/r2"
    assert len(chart.series[0].x) <= 400
    assert chart.series[0].x[-1] == 999


def test_a_sweep_is_averaged_over_seeds_and_begins_at_the_baseline():
    points = [SweepPoint("baseline", 0.0, s, 0.9, 0.5, 1) for s in (0, 1)]
    points += [SweepPoint("Reg", w, s, 0.9 - w + 0.01 * s, 0.5 + w, 2) for w in (0.2, 0.1)
               for s in (0, 1)]  # fmt: skip
    ms, r2, silent = lambda_sweep(points, "cnn")
    assert ms.series[0].labels == ["baseline", "λ 0.1", "λ 0.2"]
    assert ms.series[0].x == pytest.approx([0.9, 0.805, 0.705])
    assert r2.series[0].x == [0.1, 0.2]
    assert silent.series[0].y == [2, 2]


def test_each_setting_has_a_line_from_its_own_baseline():
    points = [
        SweepPoint(variant, weight, 0, r2 + weight, 0.5, 1, setting)
        for setting, r2 in (("k 8", 0.7), ("k 16", 0.8))
        for variant, weight in (("baseline", 0.0), ("Reg", 0.1), ("Reg", 0.2))
    ]
    ms, r2, _ = lambda_sweep(points, "cnn")
    assert [series.name for series in ms.series] == ["Reg, k 8", "Reg, k 16"]
    assert [series.x for series in ms.series] == [
        pytest.approx([0.7, 0.8, 0.9]), pytest.approx([0.8, 0.9, 1.0])
    ]  # fmt: skip
    assert len(r2.series) == 2


def test_one_run_is_no_sweep():
    assert lambda_sweep([SweepPoint("baseline", 0.0, 0, 0.9, 0.5, 1)], "cnn") == []


def test_silent_latents_are_dead_or_undefined():
    assert sweep_point(result(), "cnn") == SweepPoint("baseline", 0.0, 0, 0.9, 0.6, 3)
    assert sweep_point(result(scalars={}), "cnn") is None


def test_seeds_of_a_setting_share_a_colour_and_an_entry_of_the_legend(tmp_path, monkeypatch):
    runs = {f"{name}-{seed}": result() for seed in (0, 1, 2) for name in ("a", "b")}
    chart = by_setting(rank_profile(runs), {name: name[0] for name in runs})
    assert [series.name for series in chart.series] == list(runs)
    assert {(series.entry, series.colour) for series in chart.series} == {("a", 0), ("b", 1)}
    drawn = []
    monkeypatch.setattr(
        "lightsae.report.figures.chart.save_png", lambda figure, path: drawn.append(figure)
    )
    draw_chart(chart, tmp_path / "chart.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert {line.get_linewidth() for line in axes.get_lines()} == {0.8, 1.0}  # 1.0: the mark at k


def test_charts_of_a_page_tell_settings_and_not_their_seeds(tmp_path):
    for weight in (0.0, 0.1):
        for seed in (0, 1):
            about = {
                "d_sae": 4,
                "k": 2,
                "seed": seed,
                "embeddings": [],
                "regularizer": {"name": "Reg", "weight": weight} if weight else None,
            }
            curve = {"rank_profile": {"rank": [1.0, 2.0], "activation": [0.9, 0.3]}}
            EvaluationResult(about, {}, curve).save(tmp_path / f"{weight}-{seed}")
    (chart,) = charts_of(read_runs([tmp_path]))
    told = [(each["name"], each["setting"], each["colour"]) for each in chart["series"]]
    assert told == [
        ("0.0-0", "baseline", 0), ("0.0-1", "baseline", 0),
        ("0.1-0", "Reg, λ 0.1", 1), ("0.1-1", "Reg, λ 0.1", 1),
    ]  # fmt: skip


def test_charts_of_a_page_are_plain(made):
    charts = charts_of(read_runs([made.baseline, made.reg]))
    names = [chart["name"] for chart in charts]
    assert len(set(names)) == len(names)
    groups = list(dict.fromkeys(chart["group"] for chart in charts))
    assert groups == ["Sweep over λ", "Codes", "Latents", "Training"]


def test_the_rank_profile_has_a_line_at_each_k():
    curve = {"rank_profile": {"rank": [1.0, 2.0], "activation": [0.9, 0.3]}}
    runs = {name: EvaluationResult({"d_sae": 2, "k": k}, {}, curve)
            for name, k in (("a", 8), ("b", 2), ("c", 8), ("d", None))}  # fmt: skip
    assert rank_profile(runs).marks == [2.0, 8.0]
