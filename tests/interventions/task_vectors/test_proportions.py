"""The z-test and Wilson's interval, against other ways to the same numbers."""

import math

import pytest
from scipy.stats import chi2_contingency

from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.proportions import (
    Flips,
    Proportion,
    mcnemar_exact,
    two_proportion_z,
    wilson_interval,
)


@pytest.mark.parametrize(("a", "n", "b", "m"), [(213, 540, 160, 540), (3, 20, 11, 35)])
def test_z_is_the_root_of_chi_squared(a: int, n: int, b: int, m: int) -> None:
    found = two_proportion_z(Proportion(a, n), Proportion(b, m))
    chi = chi2_contingency([[a, n - a], [b, m - b]], correction=False)
    assert found.z**2 == pytest.approx(chi.statistic)
    assert found.p_value == pytest.approx(chi.pvalue)
    assert math.copysign(1, found.z) == math.copysign(1, a / n - b / m)
    assert found.difference == pytest.approx(a / n - b / m)


def test_equal_certainties_do_not_differ() -> None:
    assert two_proportion_z(Proportion(0, 9), Proportion(0, 4)) == (0.0, 0.0, 1.0)
    assert two_proportion_z(Proportion(9, 9), Proportion(4, 4)) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 3), (9, 2), (0, 7), (30, 12)])
def test_mcnemar_sums_the_tails_of_a_fair_coin(gained: int, lost: int) -> None:
    n, least = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, number) for number in range(least + 1)) / 2**n
    assert mcnemar_exact(Flips(gained, lost)) == pytest.approx(min(1, 2 * tail))
    assert mcnemar_exact(Flips(lost, gained)) == mcnemar_exact(Flips(gained, lost))


def test_pairs_tell_what_independent_answers_do_not() -> None:
    # 100 samples, of which only 6 changed, all for the better.
    assert two_proportion_z(Proportion(56, 100), Proportion(50, 100)).p_value > 0.3
    assert mcnemar_exact(Flips(6, 0)) == pytest.approx(2 / 64)
    with pytest.raises(LightsaeError, match="-1 gained and 2 lost, expected 0 or more"):
        mcnemar_exact(Flips(-1, 2))


@pytest.mark.parametrize(("successes", "samples"), [(0, 10), (7, 10), (10, 10), (160, 540)])
def test_wilson_ends_are_where_the_score_test_rejects(successes: int, samples: int) -> None:
    share = successes / samples
    for end in wilson_interval(Proportion(successes, samples)):
        z = (share - end) / math.sqrt(end * (1 - end) / samples) if 0 < end < 1 else None
        assert z is None or abs(z) == pytest.approx(1.959964, rel=1e-4)
    low, high = wilson_interval(Proportion(successes, samples))
    assert 0 <= low <= share <= high <= 1 and high - low > 0.01


def test_no_share_is_refused() -> None:
    for wrong in (Proportion(1, 0), Proportion(5, 4), Proportion(-1, 4)):
        with pytest.raises(LightsaeError, match="is no share"):
            wilson_interval(wrong)
        with pytest.raises(LightsaeError, match="is no share"):
            two_proportion_z(Proportion(1, 2), wrong)
    with pytest.raises(LightsaeError, match="level is 95"):
        wilson_interval(Proportion(1, 2), level=95)
