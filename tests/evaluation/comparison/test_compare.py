"""Runs beside a baseline: paired by seed, over latents scored in both and at equal rank."""

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.evaluation.comparison.compare import Comparison, Difference, compare
from lightsae.evaluation.comparison.comparison_table import comparison_table
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun

NAN = math.nan


def run(
    weight: float | None,
    seed: int | None,
    scores: list[float],
    r2: float = 0.5,
    lr: float = 0.1,
    **about: object,
) -> EvaluatedRun:
    regularizer = None if weight is None else {"name": "L1L2Ratio", "weight": weight}
    ms = torch.tensor(scores, dtype=torch.float64)
    result = EvaluationResult(
        {
            "d_sae": len(scores), "d_in": 6, "k": 2, "split": "test", "seed": seed,
            "regularizer": regularizer, "embeddings": [{"name": "cnn"}],
            "run_dir": f"runs/{weight}-{seed}",
        } | about,
        {"r2": r2, "dead": 1, "ms_mean/cnn": float(ms.nanmean())},
        {"k_robustness": {"k": [2, 4], "nmse": [0.5, 0.4], "r2": [r2, r2 + 0.1]}},
        {"ms/cnn": ms},
    )  # fmt: skip
    config = {"model": {"init_args": {"optimizer": {"init_args": {"lr": lr}}}}}
    return EvaluatedRun(folder=Path(f"runs/{weight}-{seed}"), result=result, config=config)


def figure(comparison: Comparison, name: str) -> Difference:
    return next(each for each in comparison.differences if each.name == name)


def test_survivors_alone_gain_nothing() -> None:
    """The regularizer silences the worst latent and leaves the others as they are."""
    (comparison,) = compare([run(None, 0, [0.9, 0.5, 0.1]), run(0.1, 0, [0.9, 0.5, NAN])])
    assert figure(comparison, "ms_mean/cnn").interval.mean == pytest.approx(0.2)
    assert figure(comparison, "ms_scored_in_both/cnn").interval.mean == 0
    assert figure(comparison, "ms_at_equal_rank/cnn").interval.mean == 0


def test_purity_and_probes_are_compared_where_there_are_labels() -> None:
    results = [run(None, 0, [0.5, 0.5]), run(0.1, 0, [0.5, 0.5])]
    (unlabelled,) = compare(results)
    assert not {"purity_binary", "probe_auc"} & {each.name for each in unlabelled.differences}
    for result, purity in zip(results, (0.5, 0.75), strict=True):
        result.result.scalars |= {"purity_binary": purity, "probe_auc": purity - 0.25}
    (comparison,) = compare(results)
    assert figure(comparison, "purity_binary").interval.mean == 0.25
    assert figure(comparison, "probe_auc").interval.mean == 0.25


def test_latents_are_compared_with_themselves_and_ranks_with_ranks() -> None:
    (comparison,) = compare([run(None, 0, [0.9, 0.1, NAN]), run(0.1, 0, [0.3, 0.8, 0.4])])
    in_both = figure(comparison, "ms_scored_in_both/cnn")
    assert (in_both.baseline, in_both.value) == (pytest.approx(0.5), pytest.approx(0.55))
    ranks = figure(comparison, "ms_at_equal_rank/cnn")
    assert (ranks.baseline, ranks.value) == (pytest.approx(0.5), pytest.approx(0.6))


def test_seeds_are_paired_and_give_an_interval() -> None:
    results = [run(None, seed, [0.5, 0.5], r2) for seed, r2 in ((0, 0.50), (1, 0.60), (2, 0.70))]
    results += [run(0.1, seed, [0.5, 0.5], r2) for seed, r2 in ((2, 0.73), (0, 0.52), (1, 0.61))]
    (comparison,) = compare(results)
    assert sorted(comparison.seeds) == [0, 1, 2]
    interval = figure(comparison, "r2").interval
    # Differences .02, .01, .03: mean .02, standard error .01 / sqrt(3), t(2, .975) = 4.302653.
    assert interval.mean == pytest.approx(0.02)
    assert interval.high == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert interval.low == pytest.approx(0.02 - 4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert figure(comparison, "r2_at_2k").value == pytest.approx(0.72)


def test_every_other_setting_is_compared_with_the_first() -> None:
    results = [run(weight, 0, [0.5, 0.5]) for weight in (None, 0.1, 0.2)]
    assert [each.name for each in compare(results)] == [
        "L1L2Ratio 0.1, d_sae 2, k 2", "L1L2Ratio 0.2, d_sae 2, k 2",
    ]  # fmt: skip


def test_learning_rates_are_settings_of_their_own_whatever_their_seeds() -> None:
    results = [run(None, seed, [0.5, 0.5], lr=0.1) for seed in (0, 1)]
    results += [run(0.1, 0, [0.5, 0.5], lr=0.1), run(0.1, 1, [0.5, 0.5], lr=0.3)]
    assert [(each.name, each.seeds) for each in compare(results)] == [
        ("L1L2Ratio 0.1, d_sae 2, k 2, lr 0.1", [0]),
        ("L1L2Ratio 0.1, d_sae 2, k 2, lr 0.3", [1]),
    ]


def test_a_seed_without_partner_is_left_out_and_said() -> None:
    results = [run(None, 0, [0.5, 0.4]), run(None, 1, [0.5, 0.4]), run(0.1, 1, [0.5, 0.4])]
    (comparison,) = compare(results)
    assert comparison.seeds == [1]
    assert "seeds without a partner are left out: 0" in comparison.notes


def test_latents_of_other_seeds_are_not_paired() -> None:
    (comparison,) = compare([run(None, 0, [0.5, 0.4]), run(0.1, 1, [0.6, 0.5])])
    names = [each.name for each in comparison.differences]
    assert "ms_scored_in_both/cnn" not in names and "ms_at_equal_rank/cnn" in names
    assert "the seeds differ" in comparison.notes[0]


def test_dictionaries_of_two_sizes_are_compared_by_rank() -> None:
    (comparison,) = compare([run(None, 0, [0.5, 0.4]), run(None, 0, [0.6, 0.5, 0.1])])
    ranks = figure(comparison, "ms_at_equal_rank/cnn")
    assert ranks.interval.mean == pytest.approx(0.1)


def test_a_figure_that_is_missing_has_no_difference() -> None:
    (comparison,) = compare([run(None, 0, [NAN, NAN]), run(0.1, 0, [0.5, 0.5])])
    assert "ms_scored_in_both/cnn" not in [each.name for each in comparison.differences]
    assert figure(comparison, "ms_mean/cnn").interval is None
    assert figure(comparison, "ms_mean/cnn").value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([run(None, 0, [0.5]), run(None, 1, [0.5])], "all 2 runs have one setting, baseline"),
        (
            [run(None, 0, [0.5]), run(0.1, 0, [0.5]), run(0.1, 0, [0.5])],
            r"runs/0\.1-0 and runs/0\.1-0 have one setting and one seed, 0",
        ),
        (
            [run(None, 0, [0.5]), run(None, 1, [0.5]), run(0.1, 2, [0.5])],
            r"no seed is in both L1L2Ratio 0\.1, d_sae 1, k 2 \(seeds 2\) and baseline",
        ),
        (
            [run(None, 0, [0.5]), run(0.1, 0, [0.5], split="train")],
            r"runs/0\.1-0 has split train, runs/None-0 has test",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(results: list[EvaluatedRun], message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        compare(results)


def test_the_table_shows_differences_with_their_sign_and_interval() -> None:
    results = [run(None, seed, [0.5, 0.4], 0.5) for seed in (0, 1)]
    results += [run(0.1, seed, [0.5, 0.6], 0.4 + seed / 100) for seed in (0, 1)]
    console = Console(width=120, record=True, file=io.StringIO())
    (comparison,) = compare(results)
    console.print(comparison_table(comparison))
    text = console.export_text()
    assert "L1L2Ratio 0.1, d_sae 2, k 2 against baseline, d_sae 2, k 2, seeds 0, 1" in text
    line = next(line for line in text.splitlines() if line.startswith("r2 "))
    assert line.split() == ["r2", ".5000", ".4050", "-.0950", "-.1585", "to", "-.0315"]
