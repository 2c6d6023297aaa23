"""The table a steering ends in."""

from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lightsae.interventions.steering import GuardLimit, Point, SteeringResult
from lightsae.interventions.steering.result import BASELINE, RANKED, RECONSTRUCTION
from lightsae.interventions.steering.task import Split

_DASH, _TIMES = "\u2013", "\u00d7"
_SPLITS: tuple[Split, ...] = ("choice", "test")
_NOTHING = (_DASH, "")


@dataclass(frozen=True)
class SteeringRow:
    """A row of the table.

    Attributes:
        name: What it is.
        rule: By which rule its point was taken, or nothing.
        point: Number of latents and strength, or a dash.
        cells: Value and interval as texts: of each metric on choice and on test, then damage on
            both.
        is_chosen: Whether it is the chosen point.
    """

    name: str
    rule: str
    point: str
    cells: list[tuple[str, str]]
    is_chosen: bool = False


def steering_columns(result: SteeringResult) -> list[str]:
    """Headings of the cells of `steering_rows`."""
    names = [*_metrics(result), *(["damage"] if result.guards else [])]
    return [f"{name}, {split}" for name in names for split in _SPLITS]


def steering_rows(result: SteeringResult) -> list[SteeringRow]:
    """Baseline, reconstruction only, the chosen point, and the best of each control.

    Args:
        result: The steering.

    Returns:
        Rows; of a control with different points by its two rules there are two.

    Example:
        >>> from lightsae.interventions.steering import Estimate
        >>> estimate = Estimate(0.5, 0.4, 0.6, 0.0, 0.0, 0.0)
        >>> points = [Point("baseline", "choice", {"wer": estimate}, 0.0)]
        >>> steering_rows(SteeringResult("wer", True, {}, points=points))[0].cells
        [('0.5', '0.4 to 0.6'), ('\u2013', '')]
    """
    rows = [_row(result, arm, "", (0.0, 0)) for arm in (BASELINE, RECONSTRUCTION)]
    if result.chosen is not None:
        rows.append(_row(result, RANKED, "chosen", result.chosen))
    told: dict[str, tuple[float, int] | None] = {}
    for each in result.comparisons:
        cell = (each.strength, each.count) if each.found else None
        if each.control == RECONSTRUCTION or (each.control in told and told[each.control] == cell):
            continue
        told.setdefault(each.control, cell)
        rows.append(_row(result, each.control, each.rule, cell))
    return rows


def explained_choice(result: SteeringResult) -> str:
    """The rule of the choice and what intervals are, a few sentences."""
    best = "least" if result.target_falls else "largest"
    limits = "; ".join(f"{name} may {_limit(limit)}" for name, limit in result.guards.items())
    within = f" among points whose guards stay within their limits ({limits})" if limits else ""
    return (
        f"Chosen on the split of the choice: the {best} {result.target}{within}. Equal damage: the "
        "best point of a control with no more damage there than the chosen point has; where it has "
        "none, the baseline stands for it. Intervals: 95%, "
        "by the bootstrap over samples."
    )


def _limit(limit: GuardLimit) -> str:
    sides = (("rise", limit.rise), ("fall", limit.fall))
    return " and ".join(f"{verb} by {value:g}" for verb, value in sides if value is not None)


def steering_table(result: SteeringResult) -> Table:
    """The rows as a table, to be printed by a `rich.console.Console`.

    Args:
        result: The steering.
    """
    verb = "fall" if result.target_falls else "rise"
    table = Table(
        title=f"Steering: {escape(result.target)} shall {verb}",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold",
    )  # fmt: skip
    table.add_column("arm", no_wrap=True)
    table.add_column(f"latents {_TIMES}\nstrength", justify="right")
    for heading in steering_columns(result):
        table.add_column(escape(heading.replace(", ", "\n")), justify="right")
    for row in steering_rows(result):
        name = Text(row.name, style="bold").append(f"\n{row.rule}", style="dim")
        cells = [_terminal(*cell, place % 2 == 1) for place, cell in enumerate(row.cells)]
        table.add_row(name, row.point, *cells)
    return table


def _terminal(value: str, interval: str, is_test: bool) -> Text:
    """A cell for a terminal, whose width has room for the intervals of test alone."""
    return Text(value).append(f"\n{interval}" if is_test else "", style="dim")


def _metrics(result: SteeringResult) -> list[str]:
    """Target, guards, then what else was measured."""
    measured = result.points[0].metrics if result.points else {}
    return list(dict.fromkeys([result.target, *result.guards, *measured]))


def _row(
    result: SteeringResult, arm: str, rule: str, cell: tuple[float, int] | None
) -> SteeringRow:
    points = [
        next((each for each in result.points_of(arm, split) if each.cell == cell), None)
        for split in _SPLITS
    ]
    cells = [_texts(point, metric) for metric in _metrics(result) for point in points]
    if result.guards:
        cells += [_NOTHING if point is None else (f"{point.damage:.2f}", "") for point in points]
    told = f"{cell[1]} {_TIMES} {cell[0]:g}" if cell is not None and cell[1] else _DASH
    return SteeringRow(arm, rule, told, cells, arm == RANKED)


def _texts(point: Point | None, metric: str) -> tuple[str, str]:
    """A value and its interval."""
    if point is None:
        return _NOTHING
    found = point.metrics[metric]
    return f"{found.value:.4g}", f"{found.low:.3g} to {found.high:.3g}"
