from dataclasses import replace
from pathlib import Path

import pytest

from lightsae.report import RunResult, pareto_figure
from lightsae.report.figures import pareto

BASE = RunResult("baseline", 0.0, 0, 0.8, 0.5, 0.48, 60, 3, 1, 2.0)
SWEEP = [
    replace(BASE, name=name, weight=weight, seed=seed, mean_ms=0.5 + weight, r2=0.8 - weight / 3)
    for name in ("Reg 1", "Reg 2")
    for weight in (0.1, 0.01)
    for seed in (0, 1)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    figures: list = []
    save = pareto.save_png
    monkeypatch.setattr(
        pareto, "save_png", lambda figure, path: (figures.append(figure), save(figure, path))[1]
    )
    return figures


def test_lines_begin_at_the_baseline_and_follow_lambda(drawn: list, tmp_path: Path) -> None:
    path = pareto_figure([BASE, *SWEEP], tmp_path / "p.png", encoder="another_vit", r2_floor=0.79)
    assert path.read_bytes()[1:4] == b"PNG"
    (axes,) = drawn[0].axes
    xs, ys = axes.lines[0].get_data()
    assert list(xs) == pytest.approx([0.8, 0.8 - 0.01 / 3, 0.8 - 0.1 / 3])
    assert list(ys) == pytest.approx([0.5, 0.51, 0.6])
    assert "another_vit" in axes.get_ylabel()
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["baseline", "Reg 1", "Reg 2"]


def test_without_a_baseline_lines_begin_at_their_first_lambda(drawn: list, tmp_path: Path) -> None:
    pareto_figure(SWEEP, tmp_path / "p.png", encoder="another_vit")
    assert len(drawn[0].axes[0].lines[0].get_xdata()) == 2
