"""The table of both directions: what was chosen beside its controls, on the test split."""

from collections.abc import Mapping

from rich import box
from rich.table import Table

from lightsae.interventions.look_ahead.task import AWARE, LEAK, Direction
from lightsae.interventions.steering.result import Comparison, SteeringResult
from lightsae.report.steering_summary import SteeringRow, steering_columns, steering_rows

_COLUMNS = (LEAK, AWARE, "damage")


def table_of_both(results: Mapping[Direction, SteeringResult]) -> Table:
    """Baseline, reconstruction only, and of each direction the chosen point and its controls.

    Args:
        results: Of both directions.

    Returns:
        Of each row leak rate, answers as of then and damage on the test split, and by how much the
        chosen point's leak rate is below the control's; 95% intervals by the bootstrap.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("direction", "arm", "latents,\nstrength", *_COLUMNS, "chosen less this"):
        table.add_column(heading, justify="left" if heading in ("direction", "arm") else "right")
    for place, (direction, result) in enumerate(results.items()):
        columns = steering_columns(result)
        wanted = [columns.index(f"{name}, test") for name in _COLUMNS]
        for row in steering_rows(result)[0 if place == 0 else 2 :]:
            cells = [_cell(*row.cells[column]) for column in wanted]
            steered = direction if row.rule else "neither"
            table.add_row(steered, _name(row), row.point, *cells, _difference(row, result))
        table.add_section()
    return table


def _name(row: SteeringRow) -> str:
    return f"{row.name}, {row.rule}" if row.rule else row.name


def _cell(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _difference(row: SteeringRow, result: SteeringResult) -> str:
    """How the chosen point differs in the target, where a row is one of its controls."""
    found = next((each for each in result.comparisons if _is_about(each, row)), None)
    if found is None:
        return ""
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _is_about(comparison: Comparison, row: SteeringRow) -> bool:
    return (comparison.control, comparison.rule) == (row.name, row.rule)
