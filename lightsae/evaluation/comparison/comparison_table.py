"""Comparisons as tables for the terminal."""

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightsae.evaluation.comparison.compare import Comparison, Difference
from lightsae.evaluation.result_table import shown


def comparison_table(comparison: Comparison) -> RenderableType:
    """A setting beside its baseline, a line for each figure.

    Args:
        comparison: What `compare` gives.

    Returns:
        What rich prints.
    """
    seeds = [seed for seed in comparison.seeds if seed is not None]
    told = f", seeds {', '.join(map(str, seeds))}" if seeds else ""
    title = f"{comparison.name} against {comparison.baseline}{told}"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for heading in ("baseline", "here", "difference", "95% interval"):
        table.add_column(heading, justify="right")
    for each in comparison.differences:
        table.add_row(*(Text(cell) for cell in _cells(each)))
    notes = [Text(note, "dim") for note in comparison.notes]
    return Group(Text(""), Text(title, "bold"), table, *notes)


def _cells(difference: Difference) -> list[str]:
    baseline, value, interval = difference.baseline, difference.value, difference.interval
    cells = [difference.name, shown(baseline), shown(value)]
    if interval is None:
        return [*cells, "-", "-"]
    bounds = "-"
    if not math.isnan(interval.low):
        bounds = f"{_signed(interval.low)} to {_signed(interval.high)}"
    return [*cells, _signed(interval.mean), bounds]


def _signed(number: float) -> str:
    """A difference with its sign.

    Example:
        >>> _signed(0.0123), _signed(-0.5)
        ('+.0123', '-.5000')
    """
    text = shown(abs(number))
    return f"{'-' if number < 0 else '+'}{text}"
