"""Charts of training: the columns of metrics.jsonl over steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightsae.report.figures.chart import Chart, Series

_MOST_POINTS = 400
_TITLES = {
    "r2": "R²", "loss": "Loss", "reconstruction": "Reconstruction loss", "penalty": "Penalty",
    "dead_fraction": "Share of dead latents", "dead": "Dead latents", "l0": "L0",
    "aux_k": "AuxK loss",
    "batch_active_fraction": "Share of batch-active latents", "nmse": "NMSE",
    "tokens_per_second": "Rows per second",
}  # fmt: skip
_LOG = {"loss", "reconstruction", "nmse"}

History = Sequence[Mapping[str, Any]]


def training_curves(histories: Mapping[str, History]) -> list[Chart]:
    """One chart for each column of the runs' metrics.jsonl that changes, over steps.

    Args:
        histories: Of each run the lines of its metrics.jsonl.

    Returns:
        Charts of validation and training columns, R2 and losses first.

    Example:
        >>> history = [{"step": 9, "train/r2": 0.5}, {"step": 19, "train/r2": 0.7}]
        >>> [(chart.title, chart.series[0].y) for chart in training_curves({"run": history})]
        [('R² (train)', [0.5, 0.7])]
    """
    columns = {
        name
        for history in histories.values()
        for row in history
        for name, value in row.items()
        if "/" in name and isinstance(value, int | float)
    }
    charts = [_column(histories, column) for column in sorted(columns, key=_place)]
    return [chart for chart in charts if chart.has_points]


def _place(column: str) -> tuple[int, str]:
    """Order of columns: those with a title first."""
    split, _, name = column.partition("/")
    known = list(_TITLES)
    return (known.index(name) if name in known else len(known), f"{split != 'val'}{column}")


def _column(histories: Mapping[str, History], column: str) -> Chart:
    """A column over steps."""
    split, _, name = column.partition("/")
    series = []
    for colour, (run, history) in enumerate(histories.items()):
        points = [(row["step"], row[column]) for row in history if _is_number(row.get(column))]
        every = max(1, -(-len(points) // _MOST_POINTS))
        points = points[::-every][::-1]  # the last is kept
        if len({value for _, value in points}) > 1:
            x, y = zip(*points, strict=True)
            series.append(Series(run, [float(v) for v in x], [float(v) for v in y], colour))
    title = f"{_TITLES.get(name, name)} ({split})"
    positive = all(value > 0 for each in series for value in each.y)
    return Chart(
        f"training/{column}", title, "step", _TITLES.get(name, name), series,
        log_y=name in _LOG and positive,
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
