"""Charts along lambda: what a regularizer gives and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lightsae.evaluation import EvaluationResult
from lightsae.report.figures.chart import Chart, Series


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        variant: What it has in common with the runs of its line, such as the regularizer's name.
        weight: lambda; 0 for the baseline.
        seed: Its seed.
        r2: R2.
        ms: Mean MS over the latents that have a score, or None.
        silent: Latents that are dead or undefined, or None.
        setting: What it has in common with its baseline, such as "k 8"; nothing if all have.
    """

    variant: str
    weight: float
    seed: int
    r2: float
    ms: float | None
    silent: float | None
    setting: str = ""


def sweep_point(
    result: EvaluationResult, embedding: str | None, setting: str = ""
) -> SweepPoint | None:
    """A run of a sweep, from its evaluation; None if it has no R2.

    Args:
        result: Its evaluation.
        embedding: E, or None where MS was not measured.
        setting: What it has in common with its baseline.

    Example:
        >>> result = EvaluationResult({"d_sae": 2, "k": 1, "seed": 3}, {"r2": 0.5})
        >>> sweep_point(result, None)
        SweepPoint(variant='baseline', weight=0.0, seed=3, r2=0.5, ms=None, silent=None, setting='')
    """
    regularizer = result.about.get("regularizer") or {}
    weight = float(regularizer.get("weight") or 0)
    r2 = result.scalars.get("r2")
    if r2 is None:
        return None
    ms = None if embedding is None else result.scalars.get(f"ms_mean/{embedding}")
    dead = result.scalars.get("dead")
    undefined = 0 if embedding is None else result.scalars.get(f"ms_undefined/{embedding}") or 0
    return SweepPoint(
        str(regularizer.get("name")) if weight else "baseline", weight,
        result.about.get("seed") or 0, r2, ms, None if dead is None else dead + undefined,
        setting,
    )  # fmt: skip


def lambda_sweep(points: Sequence[SweepPoint], embedding: str | None) -> list[Chart]:
    """MS against R2 along lambda, and R2 and silent latents over it.

    Args:
        points: The runs; those of one variant, setting and lambda are averaged over seeds, and
            begin at the baseline of their setting.
        embedding: E, or None where MS was not measured.

    Returns:
        Charts; none if no variant has two lambdas or a baseline beside it.

    Example:
        >>> points = [
        ...     SweepPoint("baseline", 0.0, 0, 0.80, 0.5, 1),
        ...     SweepPoint("L1L2Ratio", 0.1, 0, 0.79, 0.6, 4),
        ...     SweepPoint("L1L2Ratio", 0.2, 0, 0.78, 0.7, 9),
        ... ]
        >>> [chart.name for chart in lambda_sweep(points, "cnn")]
        ['sweep/ms_r2', 'sweep/r2', 'sweep/silent']
    """
    groups: dict[tuple[str, str], dict[float, list[SweepPoint]]] = {}
    for point in points:
        weights = groups.setdefault((point.variant, point.setting), {})
        weights.setdefault(point.weight, []).append(point)
    lines = {}
    for (variant, setting), weights in groups.items():
        if variant != "baseline":
            start = groups.get(("baseline", setting), {})
            name = ", ".join(filter(None, (variant, setting)))
            lines[name] = start | dict(sorted(weights.items()))
    lines = {name: weights for name, weights in lines.items() if len(weights) > 1}
    if not lines:
        return []
    charts = []
    if embedding is not None:
        charts.append(_against_r2(lines, embedding))
    charts.append(_along(lines, "r2", "R²", "R² along λ"))
    charts.append(_along(lines, "silent", "dead or undefined latents", "Silent latents along λ"))
    return [chart for chart in charts if chart.has_points]


_Lines = Mapping[str, Mapping[float, Sequence[SweepPoint]]]


def _mean(points: Sequence[SweepPoint], name: str) -> float | None:
    values = [getattr(point, name) for point in points]
    return None if None in values else fmean(values)


def _against_r2(lines: _Lines, embedding: str) -> Chart:
    """One line per variant, from the baseline along lambda."""
    series = []
    for colour, (name, weights) in enumerate(lines.items(), start=1):
        found = [
            (weight, r2, ms)
            for weight, points in weights.items()
            if (ms := _mean(points, "ms")) is not None and (r2 := _mean(points, "r2")) is not None
        ]
        labels = ["baseline" if weight == 0 else f"λ {weight:g}" for weight, *_ in found]
        x, y = [r2 for _, r2, _ in found], [ms for *_, ms in found]
        series.append(Series(name, x, y, colour, labels))
    return Chart(
        "sweep/ms_r2", "Reconstruction and monosemanticity along λ", "R²",
        f"mean MS in {embedding}", series, kind="path",
        note="MS over the latents that have a score; the number of silent ones is beside it.",
    )  # fmt: skip


def _along(lines: _Lines, value: str, label: str, title: str) -> Chart:
    """A value over lambda, the baseline left out where the axis has no zero."""
    series: list[Series] = []
    for colour, (name, weights) in enumerate(lines.items(), start=1):
        if sum(weight > 0 for weight in weights) < 2:
            continue
        found = [
            (weight, mean)
            for weight, points in weights.items()
            if weight > 0 and (mean := _mean(points, value)) is not None
        ]
        series.append(Series(name, [x for x, _ in found], [y for _, y in found], colour))
    return Chart(f"sweep/{value}", title, "λ", label, series, kind="path", log_x=True)
