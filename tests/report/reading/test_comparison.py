"""The comparison table: means over seeds, paired differences, intervals."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.evaluation import EvaluationResult
from lightsae.report.reading.comparison import compare, mean_and_interval, other_grounds
from lightsae.report.reading.run_inputs import RunInputs

NAN = math.nan


def run(
    name: str, seed: int | None, weight: float, r2: float, ms: list[float], k: int = 2, **model: Any
) -> RunInputs:
    scores = torch.tensor(ms, dtype=torch.float64)
    result = EvaluationResult(
        about={
            "d_sae": len(ms), "k": k, "seed": seed, "embeddings": [{"name": "cnn"}],
            "regularizer": {"name": "Reg", "weight": weight} if weight else None,
        },
        scalars={"r2": r2, "ms_mean/cnn": scores.nanmean()},
        latents={"ms/cnn": scores},
    )  # fmt: skip
    config = {"seed_everything": seed, "model": {"init_args": {"d_sae": len(ms), **model}}}
    return RunInputs(name=name, folder=Path(name), result=result, config=config)


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


def lr(rate: float) -> dict[str, Any]:
    return {"optimizer": {"class_path": "lightsae.training.SAEAdam", "init_args": {"lr": rate}}}


def test_runs_that_differ_in_more_than_their_seed_are_rows_of_their_own():
    runs = [
        run("b-0", 0, 0.0, 0.80, [0.1, 0.2], **lr(0.01)),
        run("b-1", 1, 0.0, 0.82, [0.1, 0.2], **lr(0.01)),
        run("slow-0", 0, 0.0, 0.50, [0.1, 0.2], **lr(0.001)),
        run("wide-0", 0, 0.0, 0.40, [0.1, 0.2], k=4, **lr(0.01)),
    ]
    table = compare(runs, baseline=0)
    assert [(row.name, row.seeds) for row in table.rows] == [
        ("baseline, k 2, lr 0.01", 2),
        ("baseline, k 2, lr 0.001", 1),
        ("baseline, k 4, lr 0.01", 1),
    ]
    assert cells(table.rows[0], table)["R²"].mean == pytest.approx(0.81)
    slow = cells(table.differences[0], table)
    assert slow["R²"].mean == pytest.approx(0.50 - 0.80)


def test_a_setting_of_the_regularizer_tells_runs_apart():
    masked, unmasked = (
        {"regularizer": {"class_path": "Reg", "init_args": {"batch_active_only": each}}}
        for each in (True, False)
    )
    runs = [run("b-0", 0, 0.0, 0.8, [0.1, 0.2]), run("b-1", 1, 0.0, 0.8, [0.1, 0.2]),
            run("m", 0, 0.1, 0.8, [0.1, 0.2], **masked),
            run("u", 0, 0.1, 0.7, [0.1, 0.2], **unmasked)]  # fmt: skip
    table = compare(runs, baseline=0)
    assert [row.name for row in table.rows] == [
        "baseline", "Reg, batch_active_only True", "Reg, batch_active_only False",
    ]  # fmt: skip


def test_two_runs_of_one_seed_or_of_unknown_ones_are_no_seeds_of_a_setting():
    for seed in (0, None):
        runs = [run("a", seed, 0.0, 0.8, [0.1, 0.2]), run("b", seed, 0.0, 0.7, [0.1, 0.2])]
        table = compare([*runs, run("c", 3, 0.0, 0.7, [0.1, 0.2])], baseline=0)
        assert table.rows[0].seeds == (2 if seed == 0 else 1)
        assert table.rows[1].name == "b"


def test_latents_of_runs_whose_seeds_are_unknown_do_not_pair():
    runs = [run("b", None, 0.0, 0.8, [0.1, 0.2]), run("r", None, 0.1, 0.7, [0.3, 0.5])]
    found = cells(compare(runs, baseline=0).differences[0], compare(runs, baseline=0))
    assert found["R²"].mean == pytest.approx(-0.1)
    assert math.isnan(found["paired MS in cnn"].mean)
    assert found["at equal rank"].mean == pytest.approx(0.25)


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


def test_what_was_measured_on_something_else_is_said():
    base, same, other, unknown = (run(name, 0, 0.0, 0.5, [0.1, 0.2]) for name in "bsou")
    for each, split, digest, source in ((base, "test", "a", "runs/b/cnn: x"),
                                        (same, "test", "a", "runs/s/cnn: x"),
                                        (other, "validation", "c", "runs/b/cnn: y")):  # fmt: skip
        each.result.about |= {"split": split, "shards": {"digest": digest},
                              "embeddings": [{"name": "cnn", "source": source}]}  # fmt: skip
    unknown.result.about["embeddings"] = []
    (line,) = other_grounds([base, same, other, unknown], baseline=0)
    assert line == (
        "o and b do not compare: they were measured on other splits, other shards, "
        "other embeddings named cnn"
    )
