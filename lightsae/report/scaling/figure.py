"""The figure of a scaling law: loss over n at each k, with bands."""

from pathlib import Path
from typing import Any

from lightsae.planning.scaling import Curve, ScalingResult
from lightsae.report.figures.style import INK, MUTED, PALETTE, RULE, new_figure, save_png


def draw_scaling(result: ScalingResult, path: str | Path) -> Path:
    """Write the figure: runs as points, the law as lines, 95% bands, the largest n as predicted.

    Args:
        result: The laws.
        path: The PNG; replaced atomically.

    Returns:
        The path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = new_figure(6.4, 4.6)
    axes = figure.add_axes((0.13, 0.13, 0.83, 0.72))
    figure.text(0.03, 0.93, f"Loss over latents, {result.tokens:,} tokens", fontsize=12,
                weight="bold", color=INK)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _frame(axes)
    for place, curve in enumerate(result.curves):
        _draw_k(axes, result, curve, PALETTE[place % len(PALETTE)])
    if result.held_out:
        axes.errorbar([], [], yerr=[], fmt="_", color=MUTED, label="predicted from smaller n")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return save_png(figure, path)


def _frame(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(color=RULE, linewidth=0.5, alpha=0.7, which="both")
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=0, which="both")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:.3g}")
    axes.set_xlabel("latents n", color=INK, fontsize=9)
    axes.set_ylabel("loss, 1 - R²", color=INK, fontsize=9)


def _draw_k(axes: Any, result: ScalingResult, curve: Curve, colour: str) -> None:
    """Points, line and band of a k."""
    axes.plot(curve.d_sae, [each.value for each in curve.loss], color=colour, linewidth=1.4,
              label=f"k = {curve.k}")  # fmt: skip
    axes.fill_between(curve.d_sae, [each.low for each in curve.loss],
                      [each.high for each in curve.loss], color=colour, alpha=0.15,
                      linewidth=0)  # fmt: skip
    runs = [each for each in result.runs if (each.k, each.tokens) == (curve.k, result.tokens)]
    axes.scatter([each.d_sae for each in runs], [each.loss for each in runs], s=14, color=colour,
                 alpha=0.8, linewidths=0)  # fmt: skip
    for each in result.held_out:
        if each.k == curve.k:
            low, value, high = each.predicted.low, each.predicted.value, each.predicted.high
            axes.errorbar([each.d_sae * 1.06], [value], yerr=[[value - low], [high - value]],
                          fmt="_", color=colour, capsize=2, linewidth=1)  # fmt: skip
