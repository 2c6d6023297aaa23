"""`Chart`: what a figure shows, and its picture as a PNG."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from lightsae.report.figures.style import INK, MUTED, PALETTE, RULE, new_figure, save_png

Kind = Literal["line", "steps", "points", "path"]
_LEGEND_ROWS = 8


@dataclass(frozen=True)
class Series:
    """One run in a chart.

    Attributes:
        name: What the legend says.
        x: Places.
        y: Values, as many; of steps one less, the height between two places.
        colour: Which colour of the palette.
        labels: What stands at each point, or nothing.
    """

    name: str
    x: list[float]
    y: list[float]
    colour: int = 0
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """What a figure shows.

    Attributes:
        name: Short name, unique on a page.
        title: Heading.
        x_label: What lies along x.
        y_label: What lies along y.
        series: The runs.
        kind: line, steps (a histogram), points, or path (points joined in order).
        log_x: Whether x is logarithmic.
        log_y: Whether y is.
        note: How to read it.
        marks: Places along x with a line upwards.

    Example:
        >>> chart = Chart("r2", "R2", "step", "R2", [Series("run", [0.0, 1.0], [0.1, 0.9])])
        >>> chart.has_points
        True
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    kind: Kind = "line"
    log_x: bool = False
    log_y: bool = False
    note: str = ""
    marks: list[float] = field(default_factory=list)

    @property
    def has_points(self) -> bool:
        """Whether there is anything to draw."""
        return any(len(series.x) > 0 and len(series.y) > 0 for series in self.series)


def draw_chart(chart: Chart, path: str | Path, *, width: float = 6.4, height: float = 4.2) -> Path:
    """Write a chart as a PNG.

    Args:
        chart: What it shows.
        path: The file; replaced atomically.
        width: Inches.
        height: Inches.

    Returns:
        The path.

    Raises:
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> chart = Chart("r2", "R2", "step", "R2", [Series("run", [0.0, 1.0], [0.1, 0.9])])
        >>> draw_chart(chart, Path(tempfile.mkdtemp()) / "r2.png").read_bytes()[1:4]
        b'PNG'
    """
    figure = new_figure(width, height)
    axes = figure.add_axes((0.13, 0.14, 0.83, 0.72))
    figure.text(0.03, 0.93, chart.title, fontsize=12, weight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(color=RULE, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    axes.set_xlabel(chart.x_label, color=INK, fontsize=9)
    axes.set_ylabel(chart.y_label, color=INK, fontsize=9)
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    for place in chart.marks:
        axes.axvline(place, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for series in chart.series:
        _draw_series(axes, chart, series)
    if len(chart.series) > 1:
        axes.legend(
            frameon=False, fontsize=8, labelcolor=INK, ncols=-(-len(chart.series) // _LEGEND_ROWS)
        )
    return save_png(figure, path)


def _draw_series(axes: Any, chart: Chart, series: Series) -> None:
    """Draw one run."""
    colour = PALETTE[series.colour % len(PALETTE)]
    options = {"color": colour, "label": series.name}
    if chart.kind == "steps":
        if series.y:
            axes.stairs(series.y, series.x, fill=True, color=colour, alpha=0.12)
            axes.stairs(series.y, series.x, linewidth=1.4, **options)
    elif chart.kind == "points":
        axes.scatter(series.x, series.y, s=7, alpha=0.5, linewidths=0, **options)
    else:
        marker = "o" if chart.kind == "path" or len(series.x) < 20 else None
        axes.plot(series.x, series.y, linewidth=1.6, marker=marker, markersize=4, **options)
    for x, y, text in zip(series.x, series.y, series.labels, strict=False):
        if isfinite(x) and isfinite(y):
            axes.annotate(
                text, (x, y), (5, 4), textcoords="offset points", fontsize=7, color=colour
            )
