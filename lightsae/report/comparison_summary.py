"""The comparison table of a report, for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from lightsae.report.page.render import cell_text
from lightsae.report.reading.comparison import Cell, Column, Comparison, Row, compare
from lightsae.report.reading.run_inputs import choose_baseline, read_runs

_STYLES = {1: "green", -1: "red"}


def comparison_summary(folders: Sequence[Path]) -> Table:
    """What the page of `lightsae report` has as its table, a line for each figure.

    Args:
        folders: Run folders, or folders of them, as of `lightsae report`.

    Returns:
        The table, to be printed by a `rich.console.Console`: means over seeds, and behind each the
        paired difference to the baseline with half of its 95% interval, in green or red where it is
        beyond that.

    Raises:
        LightsaeError: As in `build_report`.
    """
    runs = read_runs(folders)
    return _table(compare(runs, choose_baseline(runs, None)), runs[0].result.about.get("split"))


def _table(found: Comparison, split: str | None) -> Table:
    baseline, *others = found.rows
    seeds = max(row.seeds for row in found.rows)
    table = Table(
        title=f"{str(split or 'all').capitalize()} split, means over "
        f"{seeds} seed{'s' * (seeds != 1)}",
        caption="Δ: paired difference to the baseline, ± half of its 95% interval over seeds. "
        "MS is over the latents that have a score; paired: over those that have one in both runs.",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold", caption_style="dim",
    )  # fmt: skip
    table.add_column("", style="bold")
    for row in (baseline, *others):
        table.add_column(_heading(row), justify="right", no_wrap=True)
        if row is not baseline:
            table.add_column("Δ", justify="right", no_wrap=True)
    for place, column in enumerate(found.columns):
        cells: list[str | Text] = [_mean(column, baseline.cells[place])]
        for row, difference in zip(others, found.differences, strict=True):
            cells += [_mean(column, row.cells[place]), _difference(column, difference.cells[place])]
        table.add_row(column.title, *cells)
    return table


def _heading(row: Row) -> str:
    return f"{row.name}\nλ = {row.weight:g}" if row.weight else row.name


def _mean(column: Column, cell: Cell) -> str:
    """A mean without its interval; nothing for what only differences have."""
    return "" if column.signed or column.title == "pairs" else cell_text(Cell(cell.mean), column)


def _difference(column: Column, cell: Cell) -> Text:
    text = cell_text(cell, column, signed=True)
    return Text(text, style=_STYLES.get(cell.verdict, ""))
