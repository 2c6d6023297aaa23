"""The comparison table of a report on the terminal."""

import re

from rich.console import Console

from lightsae.report.comparison_summary import comparison_summary

from .helpers import write_run, write_shards


def printed(folders, width=80):
    console = Console(width=width, record=True, force_terminal=False)
    console.print(comparison_summary(folders))
    return console.export_text()


def test_figures_stand_beside_the_baseline_with_their_differences(tmp_path):
    shards = write_shards(tmp_path / "shards", None, 240, ["a", "b", "c"])
    for seed in (0, 1):
        write_run(tmp_path / f"sweep/a-reg-{seed}", shards, weight=0.5, seed=seed)
        write_run(tmp_path / f"sweep/baseline-{seed}", shards, seed=seed)
    text = printed([tmp_path / "sweep"])
    assert "Test split, means over 2 seeds" in text
    above, below = text.splitlines()[2:4]
    assert above.split() == ["L1L2Ratio"]
    assert below.split() == ["baseline", "λ", "=", "0.5", "Δ"]
    assert re.search(r"R² +\S*\.\d{4} +\S+ +\S+ ± \d*\.\d{4}", text)
    assert re.search(r"scored +\d+ +\d+ +\S+ ± \d+", text)
    assert re.search(r"paired MS in cnn +\S+ ± \.\d{3}", text)
    assert max(map(len, text.splitlines())) <= 80


def test_one_run_has_no_differences(made):
    text = printed([made.baseline])
    assert "Δ " not in text.replace("Δ:", "") and "R²" in text
