"""The comparison table: means over seeds, paired differences, intervals."""

import math
from pathlib import Path

import pytest
import torch

from lightsae.evaluation import EvaluationResult
from lightsae.report.reading.comparison import compare, mean_and_interval
from lightsae.report.reading.run_inputs import RunInputs

NAN = math.nan


def run(name: str, seed: int, weight: float, r2: float, ms: list[float]) -> RunInputs:
    scores = torch.tensor(ms, dtype=torch.float64)
    result = EvaluationResult(
        about={
            "d_sae": len(ms), "k": 2, "seed": seed, "embeddings": [{"name": "cnn"}],
            "regularizer": {"name": "Reg", "weight": weight} if weight else None,
        },
        scalars={"r2": r2, "ms_mean/cnn": scores.nanmean()},
        latents={"ms/cnn": scores},
    )  # fmt: skip
    return RunInputs(name, Path(name), result)


RUNS = [
    run("base-0", 0, 0.0, 0.80, [0.5, 0.7, NAN, 0.1]),
    run("reg-0", 0, 0.1, 0.81, [0.6, NAN, 0.9, 0.4]),
    run("base-1", 1, 0.0, 0.84, [0.2, 0.2, 0.2, 0.2]),
    run("reg-1", 1, 0.1, 0.82, [0.4, 0.3, 0.2, NAN]),
]


def cells(row, table):
    return dict(zip([column.title for column in table.columns], row.cells, strict=True))


def test_runs_that_differ_in_their_seed_are_one_row():
    table = compare(RUNS, baseline=0)
    assert [(row.name, row.seeds) for row in table.rows] == [("baseline", 2), ("Reg", 2)]
    assert cells(table.rows[0], table)["R²"].mean == pytest.approx(0.82)


def test_the_baseline_is_the_first_row_wherever_its_runs_stand():
    table = compare([RUNS[1], RUNS[0]], baseline=1)
    assert [(row.name, row.runs) for row in table.rows] == [("base-0", [1]), ("reg-0", [0])]
    assert [row.name for row in table.differences] == ["reg-0"]


def test_differences_are_paired_by_seed_with_a_t_interval():
    table = compare(RUNS, baseline=0)
    (row,) = table.differences
    found = cells(row, table)
    assert found["R²"].mean == pytest.approx((0.01 - 0.02) / 2)
    # Student's t of one degree of freedom times sd / sqrt(2).
    assert found["R²"].half_width == pytest.approx(12.7062 * 0.03 / 2, rel=1e-4)
    assert found["R²"].verdict == 0


def test_ms_is_compared_over_latents_scored_in_both_and_at_equal_rank():
    table = compare(RUNS, baseline=0)
    found = cells(table.differences[0], table)
    assert found["paired MS in cnn"].mean == pytest.approx(((0.1 + 0.3) / 2 + (0.3 / 3)) / 2)
    assert found["pairs"].mean == 2.5
    ranks = [(0.9 - 0.7 + 0.6 - 0.5 + 0.4 - 0.1) / 3, (0.2 + 0.1 + 0.0) / 3]
    assert found["at equal rank"].mean == pytest.approx(sum(ranks) / 2)


def test_one_run_has_no_differences_and_no_columns_of_them():
    table = compare(RUNS[:1], baseline=0)
    assert table.differences == []
    assert [column.title for column in table.columns] == ["R²", "MS in cnn"]
    assert len(table.rows[0].cells) == 2


def test_a_seed_that_the_baseline_lacks_has_no_difference():
    table = compare([RUNS[0], RUNS[3]], baseline=0)
    found = cells(table.differences[0], table)
    assert math.isnan(found["R²"].mean)
    assert math.isnan(found["paired MS in cnn"].mean)


def test_an_improvement_beyond_its_interval_is_one():
    runs = [run("b", 0, 0.0, 0.5, [0.1, 0.2]), run("r", 0, 0.1, 0.6, [0.3, 0.2])]
    table = compare(runs, baseline=0)
    # One seed has no interval, so nothing is beyond it.
    assert cells(table.differences[0], table)["R²"].verdict == 0


@pytest.mark.parametrize(
    ("values", "mean", "half"), [([], NAN, NAN), ([2.0], 2.0, NAN), ([1.0, NAN], 1.0, NAN),
                                 ([1.0, 2.0, 3.0], 2.0, 4.30265 / math.sqrt(3))]
)  # fmt: skip
def test_intervals(values, mean, half):
    cell = mean_and_interval(values)
    assert cell.mean == pytest.approx(mean, nan_ok=True)
    assert cell.half_width == pytest.approx(half, rel=1e-4, nan_ok=True)


def test_no_common_latents():
    runs = [run("b", 0, 0.0, 0.5, [0.1, NAN]), run("r", 0, 0.1, 0.6, [NAN, 0.2])]
    table = compare(runs, baseline=0)
    found = cells(table.differences[0], table)
    assert math.isnan(found["paired MS in cnn"].mean)
    assert found["pairs"].mean == 0
    assert found["at equal rank"].mean == pytest.approx(0.1)
