"""Variants against the baseline of the same seeds: paired differences with 95% t intervals."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from replication.fits import Scored
from replication.scoring import Score
from replication.training import Fit

from lightsae.metrics import Interval, latent_differences, rank_differences, t_interval

Figure = Callable[[Score], float]
Difference = Callable[[Score, Score], float]
Scores = Mapping[Fit, Scored]

FIGURES: dict[str, Figure] = {
    "R2": lambda s: s.r2,
    "R2 at 2k": lambda s: s.r2_at_2k,
    "L0": lambda s: s.l0,
    "mean MS": lambda s: s.mean_ms,
    "mean MS, silent as 0": lambda s: s.mean_ms_with_zeros,
    "dead": lambda s: s.dead,
    "undefined": lambda s: s.undefined,
    "silent": lambda s: s.dead + s.undefined,
}
DIFFERENCES: dict[str, Difference] = {
    "R2": lambda s, b: s.r2 - b.r2,
    "R2 at 2k": lambda s, b: s.r2_at_2k - b.r2_at_2k,
    "L0": lambda s, b: s.l0 - b.l0,
    "mean MS": lambda s, b: s.mean_ms - b.mean_ms,
    "MS, scored in both": lambda s, b: float(latent_differences(s.ms, b.ms).mean),
    "MS at equal rank": lambda s, b: float(rank_differences(s.ms, b.ms).mean),
    "mean MS, silent as 0": lambda s, b: s.mean_ms_with_zeros - b.mean_ms_with_zeros,
    "dead": lambda s, b: s.dead - b.dead,
    "silent": lambda s, b: s.dead + s.undefined - b.dead - b.undefined,
}


class Line(NamedTuple):
    """One variant over its seeds.

    Attributes:
        fit: The variant, its lambda and mask; of any seed.
        figures: Mean of each figure.
        differences: Less the baseline's; empty for the baseline itself.
    """

    fit: Fit
    figures: dict[str, Interval]
    differences: dict[str, Interval]


def line(
    fit: Fit, scored: Scores, seeds: Iterable[int], split: str = "test", base: Scores | None = None
) -> Line:
    """Figures of a variant, and their differences from the baseline of each seed.

    Args:
        fit: The variant, of any seed.
        scored: What there is.
        seeds: Seeds.
        split: What they are measured on.
        base: Where the baseline is, if elsewhere.
    """
    elsewhere = scored if base is None else base
    pairs = [
        (scored[fit._replace(seed=seed)].scores[split], elsewhere[Fit(seed=seed)].scores[split])
        for seed in seeds
    ]
    figures = {name: t_interval([read(own) for own, _ in pairs]) for name, read in FIGURES.items()}
    if elsewhere is scored and fit == Fit(seed=fit.seed):
        return Line(fit, figures, {})
    differences = {
        name: t_interval([compare(own, base) for own, base in pairs])
        for name, compare in DIFFERENCES.items()
    }
    return Line(fit, figures, differences)


class Point(NamedTuple):
    """One point that a regularizer is to reach.

    Attributes:
        name: What it asks for.
        measured: The difference that it is about.
        short: By how much it is missed; 0 where it holds.
    """

    name: str
    measured: Interval
    short: float


def points(found: Line, d_sae: int) -> list[Point]:
    """What Reg 1 and Reg 2 are to reach on the test split."""
    d = found.differences
    silent = d["silent"]
    return [
        _at_least("MS over latents scored in both is higher", d["MS, scored in both"], "low", 0.0),
        _at_least(
            "mean MS with silent latents as 0 is higher", d["mean MS, silent as 0"], "low", 0.0
        ),
        _at_least("R2 is at least the baseline's - .001", d["R2"], "mean", -0.001),
        _at_least("R2 at 2k is higher by .015", d["R2 at 2k"], "mean", 0.015),
        Point(
            f"silent latents are at most {0.02 * d_sae:.0f} more",
            silent,
            max(0.0, silent.mean - 0.02 * d_sae),
        ),
    ]


def _at_least(name: str, measured: Interval, end: str, least: float) -> Point:
    """A point that holds where the mean, or the lower end of the interval, reaches so far."""
    return Point(name, measured, max(0.0, least - getattr(measured, end)))
