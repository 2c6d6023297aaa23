"""The largest lambda whose mean paired difference is not negative."""

import math

import pytest

from lightsae.runs.sweep.choice import choose_weight, mean_and_error, paired_differences
from lightsae.runs.sweep.lambda_finder import bracket, first_guess, next_weights


def test_differences_are_paired_by_seed() -> None:
    baseline = {0: 0.90, 1: 0.80}
    r2 = {(0.1, 0): 0.91, (0.1, 1): 0.80, (0.01, 1): 0.70, (0.01, 0): 0.95}
    found = paired_differences(r2, baseline)
    assert list(found) == [0.01, 0.1]
    assert found[0.1] == pytest.approx([0.01, 0.0]) and found[0.01] == pytest.approx([0.05, -0.10])


def test_a_lambda_at_which_a_run_failed_is_not_chosen() -> None:
    found = paired_differences({(0.1, 0): 0.9, (0.3, 0): 0.9, (0.1, 1): 0.9}, {0: 0.8, 1: 0.8})
    assert choose_weight("Reg", found).weight == 0.1


def test_a_lambda_below_one_that_failed_is_not_the_largest_that_was_tried() -> None:
    assert choose_weight("Reg", {0.1: [0.1]}, tried=[0.1]).is_largest
    assert not choose_weight("Reg", {0.1: [0.1]}, tried=[0.1, 0.3]).is_largest


def test_a_larger_lambda_may_keep_r2_where_a_smaller_does_not() -> None:
    choice = choose_weight("Reg", {0.1: [-0.1], 0.3: [0.0], 1.0: [-0.1]})
    assert (choice.weight, choice.keeps_r2, choice.is_largest) == (0.3, True, False)


def test_where_none_keeps_r2_the_one_that_costs_least_is_told_as_that() -> None:
    choice = choose_weight("Reg", {0.1: [-0.2], 0.3: [-0.1, -0.1]})
    assert (choice.weight, choice.keeps_r2, choice.seeds) == (0.3, False, 2)
    assert choose_weight("Reg", {}).weight is None


def test_one_seed_has_no_error() -> None:
    mean, error = mean_and_error([0.5])
    assert mean == 0.5 and math.isnan(error)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_guess_has_no_unit(unit: float) -> None:
    """lambda * penalty is what counts: of data twice as large it stays the same share."""
    share = first_guess(0.2 * unit**2, 5 * unit) * 5 * unit / (0.2 * unit**2)
    assert share == pytest.approx(0.03, rel=5e-3)


def test_bracketing_narrows_on_a_log_scale_until_it_is_narrow() -> None:
    limit = 0.0123
    tried = {weight: [limit - weight] for weight in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)}
    for _ in range(9):
        weights = next_weights(tried)
        if not weights:
            break
        tried |= {weight: [limit - weight] for weight in weights}
    low, high = bracket(tried)
    assert low is not None and high is not None
    assert low <= limit < high <= 1.5 * low
    assert len(tried) <= 5 + 3 * 2


def test_bracketing_goes_on_beyond_the_first_lambdas() -> None:
    for limit in (1e-6, 1e4):
        tried = {w: [limit - w] for w in (0.1, 1.0)}
        for _ in range(20):
            tried |= {weight: [limit - weight] for weight in next_weights(tried)}
        low, high = bracket(tried)
        assert low is not None and high is not None and low <= limit < high


def test_a_lambda_at_which_a_run_failed_bounds_the_bracket() -> None:
    assert bracket({0.1: [0.0], 1.0: [math.nan]}) == (0.1, 1.0)
