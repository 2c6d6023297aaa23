from dataclasses import replace
from io import StringIO
from math import isnan, sqrt

import pytest
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.report import RunResult, comparison_table, paired_difference

BASE = RunResult("baseline", 0.0, 0, 0.8, 0.5, 0.48, 60, 3, 1, 2.0)
SEEDS = (4, 7, 9)
BASELINE = [replace(BASE, seed=seed, mean_ms=0.1 * seed) for seed in SEEDS]
# Listed in another order of seeds than the baseline's: pairing is by seed.
REG_1 = [
    replace(run, name="Reg 1", weight=0.1, mean_ms=run.mean_ms + gain, dead=5)
    for run, gain in zip(reversed(BASELINE), (0.01, 0.02, 0.03), strict=True)
]


def printed(rows: list[RunResult], width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width).print(
        comparison_table(rows, encoder="another_vit", d_sae=64, title="Digits")
    )
    return out.getvalue()


def test_mean_and_standard_error_of_paired_differences() -> None:
    mean, error = paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    assert mean == pytest.approx(2.0)
    assert error == pytest.approx(1 / sqrt(3))


def test_one_pair_has_no_standard_error() -> None:
    mean, error = paired_difference([3.0], [1.0])
    assert mean == 2.0
    assert isnan(error)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])], ids=["empty", "unequal"])
def test_what_cannot_be_paired_is_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(LightsaeError, match=f"cannot pair {len(a)} with {len(b)}"):
        paired_difference(a, b)


def test_runs_are_paired_by_seed() -> None:
    text = printed([*BASELINE, *REG_1])
    row = next(line for line in text.splitlines() if "Δ Reg 1" in line)
    errors = text.splitlines()[text.splitlines().index(row) + 1]
    assert "+.0200" in row
    assert f"±{0.01 / sqrt(3):.4f}".replace("0.", ".") in errors
    assert "+2.0" in row


def test_the_encoder_and_the_counts_are_in_the_table() -> None:
    text = printed([*BASELINE, *REG_1])
    assert "MS under another_vit" in text
    assert "Means over 3 seeds" in text
    assert "64 latents" in text
    assert all(header in text for header in ("scored", "dead", "undefined", "λ", "R²", "time"))


def test_it_fits_eighty_columns() -> None:
    long = [replace(run, name="OffSupportL1") for run in REG_1]
    text = printed([*BASELINE, *long])
    assert "…" not in text
    assert "Δ OffSupportL1" in text


def test_a_single_seed_shows_no_standard_error() -> None:
    text = printed([BASELINE[0], replace(REG_1[-1], seed=4)])
    assert "±-" in text
    assert "Means over 1 seed;" in text


def test_a_score_that_is_undefined_is_a_dash() -> None:
    text = printed([replace(BASE, mean_ms=float("nan"), median_ms=float("nan"))])
    assert "nan" not in text


def test_a_large_difference_is_coloured_by_whether_it_is_better() -> None:
    table = comparison_table([*BASELINE, *REG_1], encoder="e", d_sae=64)
    cells = {column.header: list(column.cells)[-1] for column in table.columns}
    assert cells["mean\nMS"].style == "green"
    assert cells["dead"].style == "red"
    assert cells["R²"].style == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (REG_1, "expected one variant named 'baseline' among: Reg 1"),
        ([*BASELINE, replace(BASE, weight=1.0)], "expected one variant named 'baseline'"),
        ([*BASELINE, replace(REG_1[0], seed=1)], r"Reg 1 has seeds \[1\] that the baseline lacks"),
        ([BASE, BASE], r"two runs are named baseline, weight 0, run.seed=0"),
    ],
    ids=["no-baseline", "two-baselines", "unpaired-seed", "seed-twice"],
)
def test_runs_that_do_not_compare_are_refused(rows: list[RunResult], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        comparison_table(rows, encoder="e", d_sae=64)
