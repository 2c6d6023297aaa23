"""The lambda sweep: reconstruction against interpretability."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lightsae.report.figures.style import INK, MUTED, PALETTE, RULE, new_figure, save_png
from lightsae.report.table import RunResult, group_runs


def _style(axes: Any, encoder: str) -> None:
    """Draw axes without a box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(color=RULE, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    axes.set_xlabel("R²", color=INK, fontsize=10)
    axes.set_ylabel(f"mean monosemanticity\nunder {encoder}", color=INK, fontsize=10)
    axes.margins(0.12)


def _mean_point(runs: Sequence[RunResult]) -> tuple[float, float]:
    """Return mean R2 and mean MS over seeds."""
    return fmean(run.r2 for run in runs), fmean(run.mean_ms for run in runs)


def _draw_variant(
    axes: Any,
    name: str,
    groups: dict[float, list[RunResult]],
    place: int,
    start: list[tuple[float, float]],
) -> None:
    """Draw the line of one variant from the start along its weights."""
    colour = PALETTE[place % len(PALETTE)]
    weights = sorted(groups)
    points = [_mean_point(groups[weight]) for weight in weights]
    xs, ys = zip(*points, strict=True)
    axes.plot(*zip(*start, *points, strict=True), color=colour, linewidth=1.6, alpha=0.7)
    axes.scatter(xs, ys, s=40, color=colour, edgecolor="white", label=name, zorder=3)
    side = 1 if place % 2 else -1
    for weight, point in zip(weights, points, strict=True):
        axes.annotate(
            f"λ {weight:g}",
            point,
            (side * 6, side * 5),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="bottom" if side > 0 else "top",
            fontsize=7,
            color=colour,
        )


def pareto_figure(
    rows: Sequence[RunResult],
    path: str | Path,
    *,
    encoder: str,
    baseline: str = "baseline",
    heading: str = "Reconstruction and monosemanticity along λ",
    r2_floor: float | None = None,
) -> Path:
    """Write a PNG of mean MS against R2, one line per variant from the baseline along lambda.

    Args:
        rows: The runs; those of one variant and lambda are averaged over seeds.
        path: The file; replaced atomically.
        encoder: Encoder whose embeddings the monosemanticity is measured in.
        baseline: Name of the variant where the lines begin, if it is among the runs.
        heading: Title of the figure.
        r2_floor: R2 below which a lambda is not taken; drawn as a line.

    Returns:
        The path.

    Raises:
        LightsaeError: If a variant has two runs of one seed at one lambda.
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> rows = [
        ...     RunResult("baseline", 0.0, 0, 0.80, 0.50, 0.48, 60, 3, 1, 2.0),
        ...     RunResult("Reg 1", 0.1, 0, 0.79, 0.53, 0.50, 62, 2, 0, 2.5),
        ... ]
        >>> path = Path(tempfile.mkdtemp()) / "pareto.png"
        >>> pareto_figure(rows, path, encoder="vit_tiny").read_bytes()[1:4]
        b'PNG'
    """
    variants: dict[str, dict[float, list[RunResult]]] = {}
    for (name, weight), group in group_runs(rows).items():
        variants.setdefault(name, {})[weight] = list(group.values())
    figure = new_figure(6.4, 4.6)
    axes = figure.add_axes((0.14, 0.12, 0.82, 0.76))
    _style(axes, encoder)
    figure.text(0.03, 0.94, heading, fontsize=12, weight="bold", color=INK)
    references = [run for group in variants.pop(baseline, {}).values() for run in group]
    start = [_mean_point(references)] if references else []
    if references:
        axes.scatter(*start[0], s=130, marker="*", color=PALETTE[0], label=baseline, zorder=4)
    for place, (name, groups) in enumerate(variants.items(), start=1):
        _draw_variant(axes, name, groups, place, start)
    if r2_floor is not None:
        axes.axvline(r2_floor, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            "R² allowed from here",
            (r2_floor, 0.0),
            (4, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7,
            color=MUTED,
        )
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return save_png(figure, path)
