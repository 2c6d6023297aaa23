"""The study on one pair and one k: lambda on the validation split, then the test split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from replication.choice import Choice, choose
from replication.comparison import Line, line
from replication.details import Details, details
from replication.fits import Scored, Workers, autoencoder
from replication.sets import Pair
from replication.training import Fit, Setting

MASKED = ("Reg 1", "Reg 2")


class Study(NamedTuple):
    """Results of one pair and one k.

    Attributes:
        pair: The shards and their embeddings.
        setting: What all autoencoders share.
        seeds: The paired seeds.
        choices: How lambda was chosen, by variant.
        lines: Table 1, the baseline first.
        unmasked: Table 4: the variants without the batch-active mask at the same lambda.
        details: Tables 2 and 3 and the curves, by variant and seed.
        scored: Every autoencoder that was trained.
    """

    pair: Pair
    setting: Setting
    seeds: tuple[int, ...]
    choices: dict[str, Choice]
    lines: list[Line]
    unmasked: list[Line]
    details: dict[str, dict[int, Details]]
    scored: dict[Fit, Scored]


def study(
    pair: Pair,
    setting: Setting,
    variants: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    processes: int,
    choosing: int,
    detailed: int,
    probe_rows: int,
    tell: Callable[[str], None],
    lambdas: Mapping[str, Sequence[float]] | None = None,
    r2_tolerance: float = 0.0,
) -> Study:
    """Everything that the tables and figures show of a pair.

    Args:
        pair: The shards and their embeddings.
        setting: What all autoencoders share.
        variants: Names of the regularizers.
        seeds: Seeds, paired between variants.
        out: Folder that keeps the autoencoders; what is there is not trained again.
        processes: Autoencoders trained side by side.
        choosing: Seeds that lambda is chosen with, the first ones.
        detailed: Seeds that Tables 2 to 4 and the figures are over, the first ones.
        probe_rows: Training rows that probes are fitted on.
        tell: Called with a line for each choice.
        lambdas: Lambdas to try by variant, ascending.
        r2_tolerance: R2 that lambda may cost on the validation split.
    """
    scored: dict[Fit, Scored] = {}

    def keep(found: Scored) -> None:
        scored[found.fit] = found

    choices = {}
    with Workers(pair, setting, out, processes, keep) as workers:
        for variant in variants:
            tried = (lambdas or {}).get(variant)
            choices[variant] = choose(variant, seeds[:choosing], workers, tried, r2_tolerance)
            tell(f"{pair.name}, k = {setting.k}: {choices[variant]}")
        chosen = [Fit(), *(Fit(name, choice.weight) for name, choice in choices.items())]
        unmasked = [fit._replace(masked=False) for fit in chosen if fit.variant in MASKED]
        workers.train(fit._replace(seed=seed) for fit in chosen for seed in seeds)
        workers.train(fit._replace(seed=seed) for fit in unmasked for seed in seeds[:detailed])
    rows = pair.load()
    return Study(
        pair,
        setting,
        tuple(seeds),
        choices,
        [line(fit, scored, seeds) for fit in chosen],
        [line(fit, scored, seeds[:detailed]) for fit in unmasked],
        {
            fit.variant: {
                seed: details(autoencoder(fit._replace(seed=seed), out), rows, probe_rows)
                for seed in seeds[:detailed]
            }
            for fit in chosen
        },
        scored,
    )


def mean_curve(found: Mapping[int, Details], name: str) -> list[float]:
    """Mean over seeds of a curve of `Details`."""
    curves = [getattr(each, name) for each in found.values()]
    return [fmean(values) for values in zip(*curves, strict=True)]
