"""Charts of a steering: target against damage, and both over strength."""

from collections.abc import Callable, Sequence

from lightsae.interventions.steering import Point, SteeringResult
from lightsae.interventions.steering.result import BASELINE, RANKED, RECONSTRUCTION
from lightsae.report.figures.chart import Chart, Series

_COLOURS = {BASELINE: 0, RANKED: 1, "random latents": 2, "shuffled labels": 3, "raw direction": 4,
            RECONSTRUCTION: 5}  # fmt: skip
_DAMAGE = "damage, as a share of what is allowed"


def steering_charts(result: SteeringResult, name: str = "steering") -> list[Chart]:
    """What a steering has to show of the split of the choice.

    Args:
        result: The steering.
        name: What the names of the charts begin with.

    Returns:
        Charts with points; those of damage only where there are guards.

    Example:
        >>> steering_charts(SteeringResult("wer", True, {}))
        []
    """
    charts = [_over_strength(result, f"{name}/target", result.target, _target_of(result))]
    if result.guards:
        charts.insert(0, _front(result, f"{name}/front"))
        charts.append(_over_strength(result, f"{name}/damage", _DAMAGE, lambda each: each.damage))
    return [chart for chart in charts if chart.has_points]


def _front(result: SteeringResult, name: str) -> Chart:
    """The Pareto front of each arm, beside the baseline and reconstruction only."""
    target, series = _target_of(result), []
    for arm in (BASELINE, RECONSTRUCTION, *result.arms):
        points = result.points_of(arm, "choice")
        shown = sorted(
            (each for each in points if each.on_front or not each.count),
            key=lambda each: (each.damage, target(each)),
        )
        labels = [_label(result, each) for each in shown]
        series.append(_series(arm, [each.damage for each in shown], shown, target, labels))
    return Chart(
        name, f"{result.target} against damage", _DAMAGE, result.target, series, kind="path",
        note="The Pareto front of each arm on the split of the choice; right of 1 a guard is "
        "beyond its limit.",
        marks=[1.0],
    )  # fmt: skip


def _over_strength(
    result: SteeringResult, name: str, label: str, value: Callable[[Point], float]
) -> Chart:
    """A value over strength, a line for each number of latents."""
    points = result.points_of(RANKED, "choice")
    series = []
    for place, count in enumerate(sorted({each.count for each in points})):
        shown = sorted(
            (each for each in points if each.count == count), key=lambda each: each.strength
        )
        x, y = [each.strength for each in shown], [value(each) for each in shown]
        series.append(Series(f"{count} latents" if count > 1 else "1 latent", x, y, place + 1))
    title = f"{label.partition(',')[0].capitalize()} over strength"
    return Chart(name, title, "strength", label, series, kind="path",
                 note="Ranked latents on the split of the choice.")  # fmt: skip


def _series(
    arm: str,
    x: Sequence[float],
    shown: Sequence[Point],
    value: Callable[[Point], float],
    labels: list[str],
) -> Series:
    setting = "random latents" if arm.startswith("random latents") else arm
    y = [value(each) for each in shown]
    return Series(arm, list(x), y, _COLOURS.get(setting, 0), labels, setting)


def _target_of(result: SteeringResult) -> Callable[[Point], float]:
    return lambda each: each.metrics[result.target].value


def _label(result: SteeringResult, point: Point) -> str:
    chosen = point.arm == RANKED and point.cell == result.chosen
    return "chosen" if chosen else ""
