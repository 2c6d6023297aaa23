import math

import pytest
from scipy.stats import t, ttest_1samp

from lightsae.errors import LightsaeError
from lightsae.metrics import t_interval

DIFFERENCES = [0.021, 0.017, 0.034, -0.004, 0.012]


def test_it_is_student_s_interval() -> None:
    interval = t_interval(DIFFERENCES)
    expected = ttest_1samp(DIFFERENCES, 0).confidence_interval(0.95)
    assert interval[:3] == pytest.approx((0.016, expected.low, expected.high))
    assert interval.seeds == 5
    half = interval.high - interval.mean
    assert half == pytest.approx(t.ppf(0.975, 4) * 0.0138383 / math.sqrt(5), rel=1e-4)


def test_a_wider_level_is_a_wider_interval() -> None:
    narrow, wide = t_interval(DIFFERENCES, 0.5), t_interval(DIFFERENCES, 0.999)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
    assert narrow.clear_of_zero and not wide.clear_of_zero


def test_one_seed_has_a_mean_and_no_interval() -> None:
    interval = t_interval([0.3])
    assert interval.mean == 0.3
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert not interval.clear_of_zero


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert t_interval([0.25, 0.25])[:3] == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(LightsaeError, match="expected at least one, all finite"):
        t_interval(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(LightsaeError, match="expected a share between 0 and 1"):
        t_interval([1.0, 2.0], level)
