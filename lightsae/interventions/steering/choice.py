"""The Pareto front, and the rule by which a point is chosen."""

from collections.abc import Sequence
from dataclasses import replace

from lightsae.interventions.steering.result import Point


def with_front(points: Sequence[Point], target: str, falls: bool) -> list[Point]:
    """The points of an arm, those marked that no other beats in both target and damage.

    Args:
        points: Of one arm and split.
        target: Name of the metric.
        falls: Whether less of it is better.
    """

    def beaten(point: Point) -> bool:
        mine = _key(point, target, falls)
        others = (_key(each, target, falls) for each in points)
        return any(
            other[0] <= mine[0] and other[1] <= mine[1] and other != mine for other in others
        )

    return [replace(point, on_front=not beaten(point)) for point in points]


def best(points: Sequence[Point], target: str, falls: bool, limit: float) -> Point | None:
    """The point with the best target among those whose damage is at most a limit.

    Of equal ones it is that of less damage, then of fewer latents, then of less strength.

    Args:
        points: Of one arm, on the split of the choice.
        target: Name of the metric.
        falls: Whether less of it is better.
        limit: Damage that is let through; 1 is all that the guards allow.

    Returns:
        The point, or None if there is none.
    """
    allowed = [point for point in points if point.damage <= limit]
    return min(
        allowed,
        key=lambda point: (*_key(point, target, falls), point.count, point.strength),
        default=None,
    )


def _key(point: Point, target: str, falls: bool) -> tuple[float, float]:
    """Target, the less the better, and damage."""
    value = point.metrics[target].value
    return (value if falls else -value), point.damage
