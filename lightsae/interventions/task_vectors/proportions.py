"""Shares of right answers: their intervals, and tests of two of them."""

import math
from typing import NamedTuple

from lightsae.errors import LightsaeError
from lightsae.extras import require


class Proportion(NamedTuple):
    """A share of samples.

    Attributes:
        successes: How many.
        samples: Of how many.
    """

    successes: int
    samples: int

    @property
    def share(self) -> float:
        """Their ratio."""
        return self.successes / self.samples


class Flips(NamedTuple):
    """Samples whose answer changed.

    Attributes:
        gained: Wrong before, right now.
        lost: Right before, wrong now.
    """

    gained: int
    lost: int


class ProportionTest(NamedTuple):
    """Result of the two-proportion z-test.

    Attributes:
        difference: Share of the first less that of the second.
        z: Difference over its standard error; 0 where both shares are 0 or both are 1.
        p_value: Two-sided.
    """

    difference: float
    z: float
    p_value: float


def two_proportion_z(first: Proportion, second: Proportion) -> ProportionTest:
    """Whether two shares differ, by the z-test with pooled variance.

    The two sets of answers are taken as independent. Where both are of the same questions, as two
    models' are, and go together, the test is conservative; `mcnemar_exact` takes them in pairs.

    Args:
        first: Such as of an edited model.
        second: Such as of the base.

    Raises:
        LightsaeError: If a share is of no samples or not in [0, 1].
        MissingExtraError: If scipy is not installed.

    Example:
        >>> found = two_proportion_z(Proportion(213, 540), Proportion(160, 540))
        >>> f"{found.difference:.3f} {found.z:.2f} {found.p_value:.4f}"
        '0.098 3.39 0.0007'
    """
    for each in (first, second):
        _require_share(each)
    difference = first.share - second.share
    pooled = (first.successes + second.successes) / (first.samples + second.samples)
    error = math.sqrt(pooled * (1 - pooled) * (1 / first.samples + 1 / second.samples))
    z = difference / error if error else 0.0
    stats = require("scipy.stats", extra="evaluation")
    return ProportionTest(difference, z, float(2 * stats.norm.sf(abs(z))))


def mcnemar_exact(flips: Flips) -> float:
    """Two-sided p-value of McNemar's exact test of answers to the same samples.

    Where nothing changed for the better or worse, a changed answer is either with probability 1/2.

    Args:
        flips: Changed answers; 1 where there are none.

    Raises:
        LightsaeError: If a number is negative.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> mcnemar_exact(Flips(gained=5, lost=0))
        0.0625
    """
    if min(flips) < 0:
        raise LightsaeError(f"{flips.gained} gained and {flips.lost} lost, expected 0 or more")
    if not sum(flips):
        return 1.0
    stats = require("scipy.stats", extra="evaluation")
    return float(stats.binomtest(flips.gained, sum(flips), 0.5).pvalue)


def wilson_interval(proportion: Proportion, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        proportion: The share.
        level: Confidence, in (0, 1).

    Returns:
        Its lower and upper end.

    Raises:
        LightsaeError: If the share is of no samples or not in [0, 1], or level is no confidence.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> low, high = wilson_interval(Proportion(8, 10))
        >>> f"{low:.3f} {high:.3f}"
        '0.490 0.943'
    """
    _require_share(proportion)
    if not 0 < level < 1:
        raise LightsaeError(f"level is {level}, expected a confidence in (0, 1)")
    stats = require("scipy.stats", extra="evaluation")
    found = stats.binomtest(*proportion).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def _require_share(proportion: Proportion) -> None:
    if not 0 <= proportion.successes <= proportion.samples or proportion.samples < 1:
        raise LightsaeError(
            f"{proportion.successes} of {proportion.samples} samples is no share, expected one in "
            "[0, 1] of one sample or more"
        )
