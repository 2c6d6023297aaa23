"""Where the largest admissible lambda lies: a guess without units, then a bracket in log scale.

The guess is the lambda at which the penalty of the trained baseline is a fixed share of its
reconstruction loss. Both lambda's unit and the data's cancel, so that nobody needs to know them.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

SHARE = 0.03
# Tried at first, as multiples of the guess: half a decade apart.
FIRST = tuple(10 ** (power / 2) for power in range(-3, 4))
# Values within a bracket, per round.
WITHIN = 3
# A bracket is narrow enough when its ends are no further apart.
NARROW = 1.5
ROUNDS = 5
# What trains to the end, as multiples of what the short runs found.
AROUND = (0.25, 0.5, 1.0, 2.0)


def first_guess(reconstruction: float, penalty: float) -> float:
    """The lambda at which lambda * penalty is `SHARE` of the reconstruction loss.

    Args:
        reconstruction: Of the trained baseline on the validation split.
        penalty: Unweighted, of the same.

    Example:
        >>> first_guess(reconstruction=0.1, penalty=30.0)
        0.0001
    """
    return rounded(SHARE * reconstruction / penalty) if penalty > 0 and reconstruction > 0 else 1.0


def rounded(weight: float) -> float:
    """A lambda with three digits: it becomes part of a folder's name.

    Example:
        >>> rounded(0.00012345)
        0.000123
    """
    return float(f"{weight:.3g}")


def bracket(differences: Mapping[float, Sequence[float]]) -> tuple[float | None, float | None]:
    """The largest admissible lambda, and the next larger one that was tried.

    Args:
        differences: R2 less the baseline's over paired seeds, by lambda; all that were tried, those
            that failed with NaN.

    Returns:
        Either is None where there is none.

    Example:
        >>> bracket({0.1: [0.01], 0.3: [-0.01], 1.0: [-0.02]})
        (0.1, 0.3)
    """
    admissible = [weight for weight, each in differences.items() if fmean(each) >= 0]
    low = max(admissible, default=None)
    above = [weight for weight in differences if low is None or weight > low]
    return low, min(above, default=None)


def next_weights(differences: Mapping[float, Sequence[float]]) -> list[float]:
    """What to try next; nothing where the bracket is narrow.

    Example:
        >>> next_weights({0.1: [0.01], 1.0: [-0.01]})
        [0.178, 0.316, 0.562]
        >>> next_weights({0.1: [0.01], 0.14: [-0.01]})
        []
    """
    low, high = bracket(differences)
    if low is None:
        assert high is not None
        return [rounded(high * factor) for factor in FIRST[:WITHIN]]
    if high is None:
        return [rounded(low * factor) for factor in FIRST[-WITHIN:]]
    if high / low <= NARROW:
        return []
    step = (high / low) ** (1 / (WITHIN + 1))
    found = [rounded(low * step**place) for place in range(1, WITHIN + 1)]
    return [weight for weight in dict.fromkeys(found) if weight not in differences]
