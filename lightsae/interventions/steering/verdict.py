"""The verdict on a steering: a sentence made by rule from the numbers on the test split."""

from collections.abc import Sequence

from lightsae.interventions.steering.result import (
    RANKED,
    Comparison,
    Estimate,
    Outcome,
    Point,
    SteeringResult,
)
from lightsae.plural import counted


def better(low: float, high: float, falls: bool) -> bool:
    """Whether an interval of a difference lies on the good side of zero.

    Example:
        >>> better(-0.2, -0.1, falls=True), better(-0.2, 0.1, falls=True)
        (True, False)
    """
    return high < 0 if falls else low > 0


def outcome_of(result: SteeringResult) -> Outcome:
    """What a steering came to; see `SteeringResult.outcome`.

    Args:
        result: With its points, choice and comparisons.
    """
    point = _tested(result)
    if point is None:
        return "no point"
    change = point.metrics[result.target]
    if not better(change.change_low, change.change_high, result.target_falls):
        return "nothing"
    if point.damage > 1:
        return "guards"
    return "controls" if _unbeaten(result.comparisons) else "works"


def verdict_of(result: SteeringResult) -> str:
    """The sentence.

    Args:
        result: With its points, choice, comparisons and outcome.
    """
    point = _tested(result)
    if point is None:
        least = min(each.damage for each in result.points_of(RANKED, "choice"))
        return (
            "Nothing works: no point of the ranked latents keeps the guards within their limits "
            f"(the least damage is {least:.2f} of what is allowed)."
        )
    told = f"{result.target} {_changed(point.metrics[result.target])} on test"
    where = f"with {counted(point.count, 'latent')} per layer at strength {point.strength:g}"
    if result.outcome == "nothing":
        return (
            f"Nothing works: the chosen point, {where}, does not improve the target: {told}"
            f"{_guards(point, result)}."
        )
    if result.outcome == "guards":
        return f"Too much damage: {told} {where}{_guards(point, result)}."
    if result.outcome == "controls":
        return (
            f"No better than its controls: {told} {where}{_guards(point, result)}, but so do "
            f"{_listed(_unbeaten(result.comparisons))}."
        )
    return f"Works: {told} {where}{_guards(point, result)}{_beats(result)}."


def _tested(result: SteeringResult) -> Point | None:
    """The chosen point on the test split."""
    tested = result.points_of(RANKED, "test")
    return next((point for point in tested if point.cell == result.chosen), None)


def _unbeaten(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Controls at equal damage that the chosen point does not beat."""
    return [each for each in comparisons if each.rule == "equal damage" and not each.beaten]


def _changed(estimate: Estimate) -> str:
    before = estimate.value - estimate.change
    return (
        f"{before:.4g} to {estimate.value:.4g} ({estimate.change:+.4g}, 95% "
        f"{estimate.change_low:+.4g} to {estimate.change_high:+.4g})"
    )


def _guards(point: Point, result: SteeringResult) -> str:
    if not result.guards:
        return ""
    broken = [
        name for name, limit in result.guards.items()
        if limit.damage(point.metrics[name].change) > 1
    ]  # fmt: skip
    if not broken:
        return f", guards within their limits (damage {point.damage:.2f} of what is allowed)"
    told = ", ".join(f"{name} {_changed(point.metrics[name])}" for name in broken)
    return f", beyond the limit of {told}"


def _beats(result: SteeringResult) -> str:
    equal = [each for each in result.comparisons if each.rule == "equal damage"]
    closest = min(equal, key=lambda each: abs(each.difference))
    text = (
        f", better than every control at equal damage (closest: {closest.control}, by "
        f"{abs(closest.difference):.4g})"
    )
    rivals = [
        each for each in result.comparisons if each.rule == "within limits" and not each.beaten
    ]
    return text + (f"; with more damage {_listed(rivals)} do as well" if rivals else "")


def _listed(comparisons: Sequence[Comparison]) -> str:
    return ", ".join(
        f"{each.control} ({each.difference:+.4g}, 95% {each.low:+.4g} to {each.high:+.4g})"
        for each in comparisons
    )
