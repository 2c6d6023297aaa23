"""`Chart`: what a figure shows, and its picture as a PNG."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
        name: Its name.
        x: Places.
        y: Values, as many; of steps one less, the height between two places.
        colour: Which colour of the palette.
        labels: What stands at each point, or nothing.
        setting: What the legend says of it and of the other seeds of its setting; by default its
            name.
    """

    name: str
    x: list[float]
    y: list[float]
    colour: int = 0
    labels: list[str] = field(default_factory=list)
    setting: str = ""

    @property
    def entry(self) -> str:
        """What the legend says."""
        return self.setting or self.name


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


def by_setting(chart: Chart, settings: Mapping[str, str]) -> Chart:
    """A chart in which the seeds of a setting share a colour and an entry of the legend.

    Args:
        chart: Its series are runs.
        settings: Of each run the name of its setting, in the order of colours.

    Example:
        >>> runs = [Series("a-0", [0.0], [1.0]), Series("a-1", [0.0], [2.0], 1)]
        >>> chart = by_setting(Chart("r2", "R2", "k", "R2", runs), {"a-0": "a", "a-1": "a"})
        >>> [(series.entry, series.colour) for series in chart.series]
        [('a', 0), ('a', 0)]
    """
    order = list(dict.fromkeys(settings.values()))
    series = [
        replace(each, setting=settings[each.name], colour=order.index(settings[each.name]))
        for each in chart.series
    ]
    return replace(chart, series=series)


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
    if not chart.log_x and all(float(x).is_integer() for each in chart.series for x in each.x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    for place in chart.marks:
        axes.axvline(place, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    seeds = Counter(series.entry for series in chart.series)
    told: set[str] = set()
    for series in chart.series:
        label = None if series.entry in told else series.entry
        told.add(series.entry)
        _draw_series(axes, chart, series, label, thin=seeds[series.entry] > 1)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=-(-len(seeds) // _LEGEND_ROWS))
    return save_png(figure, path)


def _draw_series(axes: Any, chart: Chart, series: Series, label: str | None, *, thin: bool) -> None:
    """Draw one run, thin where it is one of several seeds."""
    colour = PALETTE[series.colour % len(PALETTE)]
    options = {"color": colour, "label": label}
    if chart.kind == "steps":
        if series.y:
            if not thin:
                axes.stairs(series.y, series.x, fill=True, color=colour, alpha=0.12)
            axes.stairs(series.y, series.x, linewidth=0.7 if thin else 1.4, **options)
    elif chart.kind == "points":
        axes.scatter(series.x, series.y, s=7, alpha=0.5, linewidths=0, **options)
    else:
        marker = "o" if chart.kind == "path" or len(series.x) < 20 else None
        width, size = (0.8, 2) if thin else (1.6, 4)
        axes.plot(series.x, series.y, linewidth=width, marker=marker, markersize=size, **options)
    for x, y, text in zip(series.x, series.y, series.labels, strict=False):
        if isfinite(x) and isfinite(y):
            axes.annotate(
                text, (x, y), (5, 4), textcoords="offset points", fontsize=7, color=colour
            )
