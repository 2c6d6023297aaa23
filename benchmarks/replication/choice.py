"""The paper's rule: the largest lambda whose validation R2 is at least the baseline's."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from replication.fits import Scored, Workers
from replication.training import Fit

from lightsae.runs.sweep.choice import choose_weight, mean_and_error

# Ascending; R2 falls as lambda grows, so the first that clearly loses R2 ends the search.
LAMBDAS = {
    "Reg 1": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2, 1e-1),
    "Reg 2": (2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2, 1e-1),
    "MonoLoss": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}


class Choice(NamedTuple):
    """The lambda of a variant.

    Attributes:
        variant: Its name.
        weight: The lambda.
        differences: Mean validation R2 less the baseline's, for every lambda that was tried.
        keeps_r2: Whether it satisfies the rule; if none does it is the one that costs least.
        r2_tolerance: R2 that it was allowed to cost.
    """

    variant: str
    weight: float
    differences: dict[float, float]
    keeps_r2: bool
    r2_tolerance: float = 0.0

    def __str__(self) -> str:
        tried = ", ".join(f"{w:g} {d:+.5f}" for w, d in sorted(self.differences.items()))
        kept = f"keeps R2 to {self.r2_tolerance:g}" if self.r2_tolerance else "keeps R2"
        why = f"largest that {kept}" if self.keeps_r2 else f"none {kept}, the least costly"
        return f"{self.variant}: lambda {self.weight:g} ({why}); validation R2 - baseline: {tried}"


def choose(
    variant: str,
    seeds: Sequence[int],
    workers: Workers,
    lambdas: Sequence[float] | None = None,
    r2_tolerance: float = 0.0,
) -> Choice:
    """Train with one lambda after the other until one loses R2 by more than a standard error.

    A smaller loss may be chance, and a larger lambda be the one that the rule looks for.

    Args:
        variant: Name of the regularizer.
        seeds: Seeds that it is trained with.
        workers: Train it.
        lambdas: To try, ascending.
        r2_tolerance: R2 that a lambda may cost.
    """
    base = workers.train(Fit(seed=seed) for seed in seeds)
    differences, allowed = dict[float, list[float]](), dict[float, list[float]]()
    for weight in LAMBDAS[variant] if lambdas is None else lambdas:
        found = workers.train(Fit(variant, weight, seed) for seed in seeds)
        differences[weight] = r2_differences(found.values(), base)
        allowed[weight] = [difference + r2_tolerance for difference in differences[weight]]
        if clearly_negative(allowed[weight]):
            break
    chosen = choose_weight(variant, allowed)
    assert chosen.weight is not None
    means = {weight: mean_and_error(each)[0] for weight, each in differences.items()}
    return Choice(variant, chosen.weight, means, chosen.keeps_r2, r2_tolerance)


def clearly_negative(differences: Sequence[float]) -> bool:
    """Whether the mean is below zero by more than its standard error; of one, below zero."""
    mean, error = mean_and_error(differences)
    return mean < 0 and not mean + error >= 0


def r2_differences(found: Iterable[Scored], base: dict[Fit, Scored]) -> list[float]:
    """Validation R2 less that of the baseline with the same seed, for each seed."""
    return [
        scored.scores["validation"].r2 - base[Fit(seed=scored.fit.seed)].scores["validation"].r2
        for scored in found
    ]
