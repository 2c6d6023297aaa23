"""What a sweep tells on the terminal."""

from pathlib import Path

from rich.console import Console

from lightsae.report.sweep_summary import explained_choices, sweep_table
from lightsae.runs.sweep.choice import choose_weight
from lightsae.runs.sweep.grid import Point
from lightsae.runs.sweep.sweep_file import Result, SweepFile

SETTING = (8, 512, 1e-3)


def made(variant: str, weight: float, seed: int, r2: float | None) -> Result:
    point = Point(*SETTING, seed, variant, weight)
    if r2 is None:
        return Result(point, "failed", 7, "the loss is nan")
    return Result(point, "trained", 20, None, {"r2": r2, "l0": 8.0, "dead": 3.0 + seed})


def finished(path: Path) -> SweepFile:
    file = SweepFile(path / "sweep.json")
    file.add("find 1", [made("Reg", 9.0, 0, 0.1)])
    file.add("grid", [
        made("Reg", 0.3, 0, 0.7), made("Reg", 0.3, 1, None), made("Reg", 0.1, 0, 0.84),
        made("Reg", 0.1, 1, 0.81), made("baseline", 0.0, 0, 0.82), made("baseline", 0.0, 1, 0.8),
    ])  # fmt: skip
    file.finish([(SETTING, choose_weight("Reg", {0.1: [0.02, 0.01]}))])
    return file


def printed(file: SweepFile) -> str:
    console = Console(width=80, record=True, force_terminal=False)
    console.print(sweep_table(file))
    return console.export_text()


def test_each_lambda_stands_beside_its_baseline(tmp_path: Path) -> None:
    text = printed(finished(tmp_path))
    assert "k = 8, d_sae = 512, lr = 0.001" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("base", "Reg"))]
    assert rows[0][:3] == ["baseline", "0", "0.8100"]
    assert rows[1] == ["Reg", "0.1", "0.8250", "+0.0150", "8.0", "3.5", "2", "←"]
    assert rows[2][:4] == ["Reg", "0.3", "0.7000", "-0.1200"]
    assert "1 failed" in text and "±0.0050" in text


def test_a_choice_is_explained(tmp_path: Path) -> None:
    (text,) = explained_choices(finished(tmp_path))
    assert text.startswith("Reg, k = 8, d_sae = 512, lr = 0.001: λ = 0.1 is the largest that keeps")
    assert "+0.0150 ± 0.0050, 2 seeds" in text and "largest that was tried" in text


def test_only_choices_for_the_settings_of_some_members_are_explained(tmp_path: Path) -> None:
    file = finished(tmp_path)
    other = Point(16, 512, 1e-3, 0, "Reg", 0.1)
    file.add("grid", [Result(other, "trained", 20, None, {"r2": 0.9})])
    chosen = choose_weight("Reg", {0.1: [0.02]})
    file.finish([(SETTING, chosen), (other.setting, chosen)])
    assert len(explained_choices(file)) == 2
    (text,) = explained_choices(file, {other.name})
    assert text.startswith("Reg, k = 16, ")
    assert explained_choices(file, {Point(*SETTING, 0).name}) == []


def test_a_file_that_is_read_again_tells_the_same(tmp_path: Path) -> None:
    file = finished(tmp_path)
    again = SweepFile(file.path)
    assert printed(again) == printed(file)
    assert explained_choices(again) == explained_choices(file)


def test_what_costs_r2_is_not_marked_as_chosen(tmp_path: Path) -> None:
    file = finished(tmp_path)
    file.finish([(SETTING, choose_weight("Reg", {0.1: [-0.02]}))])
    rows = [line for line in printed(file).splitlines() if line.strip().startswith("Reg")]
    assert len(rows) == 2 and not any("←" in row for row in rows)
    (text,) = explained_choices(file)
    assert "no λ keeps the baseline's R²; λ = 0.1 costs least (-0.0200, 1 seed)" in text
