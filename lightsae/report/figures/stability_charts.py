"""Charts of the stability of seeds."""

from math import isfinite

from lightsae.dictionaries import StabilityResult
from lightsae.report.figures.chart import Chart, Series

MEASURES = {"cosine": "decoder rows", "iou": "co-firing", "correlation": "correlation"}
BASELINES = {"uniform": "random", "covariance": "random, as decoder rows spread"}
_SETS = ("latents", "firings", "reconstruction")


def stability_charts(result: StabilityResult, name: str = "stability") -> list[Chart]:
    """Stability over thresholds and frequency, and what stable latents reconstruct.

    Args:
        result: The stability.
        name: What the names of the charts begin with.

    Returns:
        Charts with points.
    """
    charts = [
        _thresholds(result, f"{name}/thresholds"),
        _frequency(result, f"{name}/frequency"),
        _shares(result, f"{name}/shares"),
    ]
    return [chart for chart in charts if chart.has_points]


def _thresholds(result: StabilityResult, name: str) -> Chart:
    x = list(result.thresholds)
    series = [
        Series(MEASURES[each], x, [point.mean for point in result.mean_stability(each)], place)
        for place, each in enumerate(name for name in MEASURES if name in result.measures)
    ]
    random = [(told, result.baselines[kind]) for kind, told in BASELINES.items()
              if kind in result.baselines]  # fmt: skip
    for place, (told, found) in enumerate(random, len(series)):
        series.append(Series(told, x, list(found.mean), place))
    return Chart(
        name, "Stability over thresholds", "threshold", "mean stability", series, kind="path",
        note="Share of other seeds that have a latent at least so similar, mean over latents that "
        "fire; random dictionaries in place of the other seeds.",
    )  # fmt: skip


def _frequency(result: StabilityResult, name: str) -> Chart:
    curve = result.curve()
    series = []
    for place, threshold in enumerate(result.thresholds):
        points = [
            ((low * high) ** 0.5, value)
            for low, high, value in zip(curve.low, curve.high, curve.stability[place], strict=True)
            if isfinite(value)
        ]
        series.append(
            Series(f"{threshold:g}", [x for x, _ in points], [y for _, y in points], place)
        )
    return Chart(
        name, "Stability against frequency", "share of rows that a latent fires on",
        "mean stability", series, kind="path", log_x=True,
        note="Mean over the latents of all seeds in bins of a quarter of a decade; a line for each "
        "threshold.",
    )  # fmt: skip


def _shares(result: StabilityResult, name: str) -> Chart:
    x = [float(place) for place in range(1, len(result.seeds) + 1)]
    parts: dict[str, list[float]] = {told: [] for told in _SETS}
    for each in result.reconstruction:
        for told, pair in (("latents", each.latents), ("firings", each.firings)):
            parts[told].append(pair[0] / sum(pair) if sum(pair) else float("nan"))
        parts["reconstruction"].append(each.stable.share)
    series = [
        Series(told, [place for place, y in zip(x, values, strict=True) if isfinite(y)],
               [y for y in values if isfinite(y)], colour)
        for colour, (told, values) in enumerate(parts.items())
    ]  # fmt: skip
    return Chart(
        name, "What stable latents have a share of", "seed, by place", "share of stable latents",
        series, kind="path",
        note="Of latents that fire, of firings, and of what is lost when stable or unstable "
        f"latents are ablated. Stable: at {result.cut.threshold:g} in a share of "
        f"{result.cut.share:g} of the other seeds or more.",
    )  # fmt: skip
