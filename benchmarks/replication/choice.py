"""The paper's rule: the largest lambda whose validation R2 is at least the baseline's."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from replication.fits import Scored, Workers
from replication.training import Fit

from lightsae.runs.sweep import choose_weight

# Ascending; R2 falls as lambda grows, so the first that loses R2 ends the search.
LAMBDAS = {
    "Reg 1": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2, 1e-1),
    "Reg 2": (3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2, 1e-1),
    "MonoLoss": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}


class Choice(NamedTuple):
    """The lambda of a variant.

    Attributes:
        variant: Its name.
        weight: The lambda.
        differences: Mean validation R2 less the baseline's, for every lambda that was tried.
    """

    variant: str
    weight: float
    differences: dict[float, float]

    @property
    def keeps_r2(self) -> bool:
        """Whether it satisfies the rule; if none does it is the smallest."""
        return self.differences[self.weight] >= 0

    def __str__(self) -> str:
        tried = ", ".join(f"{w:g} {d:+.5f}" for w, d in sorted(self.differences.items()))
        why = "largest that keeps R2" if self.keeps_r2 else "none keeps R2, the smallest"
        return f"{self.variant}: lambda {self.weight:g} ({why}); validation R2 - baseline: {tried}"


def choose(
    variant: str, seeds: Sequence[int], workers: Workers, lambdas: Sequence[float] | None = None
) -> Choice:
    """Train with one lambda after the other until the mean paired difference is negative."""
    base = workers.train(Fit(seed=seed) for seed in seeds)
    differences: dict[float, float] = {}
    for weight in LAMBDAS[variant] if lambdas is None else lambdas:
        found = workers.train(Fit(variant, weight, seed) for seed in seeds)
        differences[weight] = mean_r2_difference(found.values(), base)
        if differences[weight] < 0:
            break
    chosen = choose_weight(variant, {weight: [mean] for weight, mean in differences.items()})
    assert chosen.weight is not None
    return Choice(variant, chosen.weight, differences)


def mean_r2_difference(found: Iterable[Scored], base: dict[Fit, Scored]) -> float:
    """Mean over seeds of the validation R2 less that of the baseline with the same seed."""
    return fmean(
        scored.scores["validation"].r2 - base[Fit(seed=scored.fit.seed)].scores["validation"].r2
        for scored in found
    )
