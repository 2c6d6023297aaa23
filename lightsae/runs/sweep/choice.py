"""The paper's rule: the largest lambda whose validation R2 is at least the baseline's.

What counts is the mean of the differences over paired seeds (arXiv 2606.27321).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import fmean, stdev


@dataclass(frozen=True)
class Choice:
    """The lambda of a regularizer in one setting.

    Attributes:
        variant: Name of the regularizer.
        weight: lambda; None where no run of it ended.
        difference: Mean R2 less the baseline's over paired seeds.
        standard_error: Of that mean; NaN for one seed.
        seeds: Number of pairs.
        keeps_r2: Whether it satisfies the rule; otherwise it is the one that costs least.
        is_largest: Whether it is the largest lambda that was tried.
    """

    variant: str
    weight: float | None
    difference: float
    standard_error: float
    seeds: int
    keeps_r2: bool
    is_largest: bool


def paired_differences(
    r2: Mapping[tuple[float, int], float], baseline: Mapping[int, float]
) -> dict[float, list[float]]:
    """R2 less that of the baseline with the same seed, for each lambda, ascending.

    A lambda counts only where it has every seed of the baseline: one at which a run failed is none
    to be chosen.

    Args:
        r2: By lambda and seed.
        baseline: By seed.

    Example:
        >>> paired_differences({(0.1, 0): 0.75, (0.1, 1): 0.5, (0.3, 0): 0.5}, {0: 0.5, 1: 0.5})
        {0.1: [0.25, 0.0]}
    """
    found = {}
    for weight in sorted({weight for weight, _ in r2}):
        if all((weight, seed) in r2 for seed in baseline):
            found[weight] = [r2[weight, seed] - base for seed, base in baseline.items()]
    return {weight: differences for weight, differences in found.items() if differences}


def mean_and_error(differences: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, NaN for a single value.

    Example:
        >>> mean_and_error([1.0, 3.0])
        (2.0, 1.0)
    """
    if len(differences) < 2:
        return (differences[0] if differences else nan), nan
    return fmean(differences), stdev(differences) / sqrt(len(differences))


def choose_weight(
    variant: str, differences: Mapping[float, Sequence[float]], tried: Iterable[float] = ()
) -> Choice:
    """The largest lambda whose mean difference is at least 0; if none is, the one nearest to it.

    Args:
        variant: Name of the regularizer.
        differences: What `paired_differences` returned.
        tried: Other lambdas, at which a run failed.

    Example:
        >>> choose_weight("Reg 1", {0.1: [0.01, -0.01], 0.3: [-0.02, 0.01]}).weight
        0.1
        >>> choose_weight("Reg 1", {0.1: [-0.01], 0.3: [-0.02]}).keeps_r2
        False
    """
    means = {weight: fmean(each) for weight, each in differences.items()}
    kept = [weight for weight, mean in means.items() if mean >= 0]
    if not means:
        return Choice(variant, None, nan, nan, 0, False, False)
    weight = max(kept) if kept else max(means, key=means.__getitem__)
    mean, error = mean_and_error(differences[weight])
    return Choice(
        variant, weight, mean, error, len(differences[weight]), bool(kept),
        weight == max((*means, *tried)),
    )  # fmt: skip
