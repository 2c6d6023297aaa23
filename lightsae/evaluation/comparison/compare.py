"""Runs beside a baseline: paired differences that survivors cannot flatter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.evaluation.comparison.run_groups import names_beside_sizes
from lightsae.evaluation.result import EvaluationResult
from lightsae.metrics import Interval, latent_differences, rank_differences, t_interval

_SAME = ("split", "d_in", "d_out")
_SCALARS = (
    "r2", "r2_uniform", "nmse", "l0", "hoyer", "dead", "uniqueness", "purity_binary",
    "purity_weighted", "probe_auc",
)  # fmt: skip
_MS = ("ms_mean", "ms_mean_with_dead_as_zero", "ms_scored", "ms_undefined")


@dataclass(frozen=True)
class Difference:
    """One figure of a setting beside the baseline's.

    Attributes:
        name: Of the figure, with the embedding behind a slash.
        baseline: Mean over the baseline's runs that have it.
        value: Mean over the setting's.
        interval: Mean difference over seeds with its 95% t interval (NaN with one seed); None where
            the figure is missing somewhere.
    """

    name: str
    baseline: float | None
    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """A setting beside the baseline, seed by seed.

    Attributes:
        name: Of the setting.
        baseline: Name of the baseline.
        seeds: The seeds that both have; None stands for a single pair of unknown seeds.
        differences: One for each figure.
        notes: What a reader must know of them.
    """

    name: str
    baseline: str
    seeds: list[int | None]
    differences: list[Difference]
    notes: list[str] = field(default_factory=list)


def compare(runs: Sequence[EvaluatedRun]) -> list[Comparison]:
    """Compare every setting with that of the first run.

    Runs that differ in nothing but the seed are one setting. Figures are paired by seed.
    Monosemanticity is compared over the latents that have a score in both runs of a seed, and at
    equal rank: the r-th best of each.

    Args:
        runs: At least two, of one split.

    Returns:
        A comparison for each setting but the first.

    Raises:
        LightsaeError: If there is one setting only, a setting has a seed twice, or no seed is in
            both.
    """
    _require_one_split(runs)
    groups = _by_setting(runs)
    names = names_beside_sizes([group[0] for group in groups])
    if len(groups) < 2:
        raise LightsaeError(
            f"compare: all {len(runs)} runs have one setting, {', '.join(names) or 'none'}; "
            "expected a baseline and others"
        )
    baseline, *others = ({run.seed: run.result for run in group} for group in groups)
    return [
        _compared(name, group, names[0], baseline)
        for name, group in zip(names[1:], others, strict=True)
    ]


def _require_one_split(runs: Sequence[EvaluatedRun]) -> None:
    first = runs[0].result
    for run in runs:
        for key in _SAME:
            here, there = run.result.about.get(key), first.about.get(key)
            if here != there:
                raise LightsaeError(
                    f"compare: {_place(run.result)} has {key} {here}, {_place(first)} has {there}"
                )


def _by_setting(runs: Sequence[EvaluatedRun]) -> list[list[EvaluatedRun]]:
    """The runs of each setting, which have different seeds."""
    found: dict[object, list[EvaluatedRun]] = {}
    for run in runs:
        group = found.setdefault(run.variant, [])
        for other in group:
            if other.seed == run.seed:
                raise LightsaeError(
                    f"compare: {_place(other.result)} and {_place(run.result)} have one setting "
                    f"and one seed, {run.seed}"
                )
        group.append(run)
    return list(found.values())


def _place(result: EvaluationResult) -> str:
    return str(result.about.get("run_dir") or "a result")


def _compared(
    name: str,
    runs: dict[int | None, EvaluationResult],
    baseline: str,
    reference: dict[int | None, EvaluationResult],
) -> Comparison:
    """One setting beside the baseline."""
    seeds = [seed for seed in runs if seed in reference]
    notes = []
    if seeds:
        pairs = [(runs[seed], reference[seed]) for seed in seeds]
        left = sorted(str(seed) for seed in runs.keys() ^ reference.keys())
        if left:
            notes.append(f"seeds without a partner are left out: {', '.join(left)}")
    elif len(runs) == len(reference) == 1:
        seeds = [None]
        pairs = list(zip(runs.values(), reference.values(), strict=True))
        notes.append("the seeds differ: latents of one index are not the same latent")
    else:
        raise LightsaeError(
            f"compare: no seed is in both {name} ({_listed(runs)}) and {baseline} "
            f"({_listed(reference)})"
        )
    if len(pairs) == 1:
        notes.append("one seed: no interval")
    paired = seeds != [None]
    return Comparison(name, baseline, seeds, _differences(pairs, paired, notes), notes)


def _listed(runs: dict[int | None, EvaluationResult]) -> str:
    return "seeds " + ", ".join(map(str, runs))


def _differences(
    pairs: list[tuple[EvaluationResult, EvaluationResult]], paired: bool, notes: list[str]
) -> list[Difference]:
    """All figures of pairs of a run and the baseline's of its seed."""
    found = [_scalar(name, pairs) for name in _SCALARS]
    found.append(_r2_at_twice_k(pairs))
    common = [
        name for name in pairs[0][0].embedding_names
        if all(name in result.embedding_names for pair in pairs for result in pair)
    ]  # fmt: skip
    if not common:
        notes.append("there are no embeddings that all runs were measured in")
    for embedding in common:
        found += [_scalar(f"{name}/{embedding}", pairs) for name in _MS]
        scores = [tuple(each.latents[f"ms/{embedding}"] for each in pair) for pair in pairs]
        if paired and all(len(run) == len(base) for run, base in scores):
            found.append(_in_both(embedding, scores))
        ranks = [rank_differences(run, base) for run, base in scores]
        found.append(
            _made(
                f"ms_at_equal_rank/{embedding}",
                [float(each.baseline.mean()) for each in ranks],
                [float(each.scores.mean()) for each in ranks],
            )
        )
    return [each for each in found if each.baseline is not None or each.value is not None]


def _scalar(name: str, pairs: list[tuple[EvaluationResult, EvaluationResult]]) -> Difference:
    values, baselines = ([pair[side].scalars.get(name) for pair in pairs] for side in (0, 1))
    return _made(name, baselines, values)


def _r2_at_twice_k(pairs: list[tuple[EvaluationResult, EvaluationResult]]) -> Difference:
    """R2 with twice the k that a run was trained with."""
    values, baselines = ([_at_twice_k(pair[side]) for pair in pairs] for side in (0, 1))
    return _made("r2_at_2k", baselines, values)


def _at_twice_k(result: EvaluationResult) -> float | None:
    curve, k = result.curves.get("k_robustness"), result.about.get("k")
    if curve is None or k is None or 2 * k not in curve["k"]:
        return None
    return curve["r2"][curve["k"].index(2 * k)]


def _in_both(embedding: str, scores: list[Any]) -> Difference:
    """Monosemanticity over the latents that have a score in both runs."""
    means: list[tuple[float, float]] = []
    for run, base in scores:
        both: Tensor = ~latent_differences(run, base).differences.isnan()
        means.append((float(run[both].mean()), float(base[both].mean())))
    values, baselines = ([pair[side] for pair in means] for side in (0, 1))
    return _made(f"ms_scored_in_both/{embedding}", baselines, values)


def _made(
    name: str, baselines: Sequence[float | None], values: Sequence[float | None]
) -> Difference:
    """A figure of every pair; None where a run lacks it."""
    known = [
        (float(base), float(value)) for base, value in zip(baselines, values, strict=True)
        if base is not None and value is not None and base == base and value == value
    ]  # fmt: skip
    if len(known) < len(values):
        return Difference(name, _mean(baselines), _mean(values), None)
    interval = t_interval([value - base for base, value in known])
    return Difference(name, _mean(baselines), _mean(values), interval)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None and value == value]
    return sum(known) / len(known) if known else None
