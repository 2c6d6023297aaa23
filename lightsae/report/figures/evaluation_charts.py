"""Charts of evaluations: each takes the results by the names of their runs."""

from collections.abc import Mapping

import torch

from lightsae.evaluation import EvaluationResult
from lightsae.report.figures.chart import Chart, Series

_BINS = 40
_MOST_POINTS = 4096

Results = Mapping[str, EvaluationResult]


def _series(results: Results, curve: str, x: str, y: str) -> list[Series]:
    """A column of a curve against another, of the runs that have both."""
    found = []
    for colour, (name, result) in enumerate(results.items()):
        columns = result.curves.get(curve, {})
        if x in columns and y in columns:
            found.append(Series(name, columns[x], columns[y], colour))
    return found


def rank_profile(results: Results) -> Chart:
    """Mean activation of the r-th strongest latent of a row, in logarithmic ranks.

    Example:
        >>> result = EvaluationResult(
        ...     {"d_sae": 2}, {}, {"rank_profile": {"rank": [1.0, 2.0], "activation": [0.9, 0.3]}})
        >>> rank_profile({"run": result}).series[0].y
        [0.9, 0.3]
    """
    return Chart(
        "rank_profile", "Rank profile", "rank of the latent in its row", "mean activation",
        _series(results, "rank_profile", "rank", "activation"), log_x=True,
        note="Mean activation before Top-k, by rank, with a line at k. The steeper it falls behind "
        "k, the less is lost by keeping k.",
        marks=sorted({float(k) for each in results.values() if (k := each.about.get("k"))}),
    )  # fmt: skip


def k_robustness(results: Results) -> Chart:
    """R2 with another k than the one trained with.

    Example:
        >>> result = EvaluationResult(
        ...     {"d_sae": 2}, {}, {"k_robustness": {"k": [1.0, 2.0], "r2": [0.5, 0.8]}})
        >>> k_robustness({"run": result}).series[0].x
        [1.0, 2.0]
    """
    return Chart(
        "k_robustness", "R² when another k is kept", "k at inference", "R²",
        _series(results, "k_robustness", "k", "r2"), log_x=True,
        note="One autoencoder, read with other k than it was trained with.",
    )  # fmt: skip


def truncated_probe(results: Results) -> Chart:
    """Accuracy of a linear probe on the k' strongest latents of a row."""
    return Chart(
        "truncated_probe", "Truncated linear probe", "latents kept per row", "top-1 accuracy",
        _series(results, "truncated_probe", "k", "top1"), log_x=True,
        note="For each number a linear classifier is fitted on codes cut to the strongest latents "
        "of each row, and tested on codes cut alike.",
    )  # fmt: skip


def firing_density(results: Results) -> Chart:
    """How many latents fire how often, by log10 of the share of rows.

    Example:
        >>> curve = {"log10_low": [-2.0, -1.0], "log10_high": [-1.0, 0.0], "count": [3.0, 1.0]}
        >>> result = EvaluationResult({"d_sae": 4}, {}, {"firing_density": curve})
        >>> firing_density({"run": result}).series[0].x
        [-2.0, -1.0, 0.0]
    """
    found = []
    for colour, (name, result) in enumerate(results.items()):
        curve = result.curves.get("firing_density", {})
        if {"log10_low", "log10_high", "count"} <= curve.keys() and curve["count"]:
            edges = [*curve["log10_low"], curve["log10_high"][-1]]
            found.append(Series(name, edges, curve["count"], colour))
    return Chart(
        "firing_density", "Firing density", "log10 of the share of rows", "latents", found,
        kind="steps", note="Latents that never fire are not drawn.",
    )  # fmt: skip


def ms_histogram(results: Results, embedding: str) -> Chart:
    """How many latents have which monosemanticity.

    Args:
        results: The runs.
        embedding: E, as it is named in the results.

    Example:
        >>> scores = torch.tensor([0.5, 0.9, float("nan")])
        >>> result = EvaluationResult({"d_sae": 3}, {}, {}, {"ms/cnn": scores})
        >>> sum(ms_histogram({"run": result}, "cnn").series[0].y)
        2.0
    """
    scores = {
        name: (colour, found[~found.isnan()])
        for colour, (name, result) in enumerate(results.items())
        if (found := result.latents.get(f"ms/{embedding}")) is not None
    }
    every = torch.cat([found.double() for _, found in scores.values()] or [torch.zeros(0)])
    low = min(0.0, float(every.min())) if len(every) else 0.0
    series = []
    for name, (colour, found) in scores.items():
        counts, edges = torch.histogram(found.float(), _BINS, range=(low, 1.0))
        series.append(Series(name, edges.tolist(), counts.tolist(), colour))
    return Chart(
        f"ms_histogram/{embedding}", f"Monosemanticity in {embedding}", f"MS in {embedding}",
        "latents", series, kind="steps",
        note="Latents with a score; dead and undefined ones have none.",
    )  # fmt: skip


def ms_against_frequency(results: Results, embedding: str) -> Chart:
    """Monosemanticity of each latent against the share of rows it fires on.

    Args:
        results: The runs; of a large dictionary evenly spaced latents are shown.
        embedding: E, as it is named in the results.
    """
    series = []
    for colour, (name, result) in enumerate(results.items()):
        scores, firings = result.latents.get(f"ms/{embedding}"), result.latents.get("firings")
        if scores is None or firings is None:
            continue
        shown = (~scores.isnan() & (firings > 0)).nonzero().squeeze(1)
        shown = shown[:: max(1, -(-len(shown) // _MOST_POINTS))]
        share = firings[shown].double() / max(result.about.get("rows") or 1, 1)
        series.append(Series(name, share.tolist(), scores[shown].tolist(), colour))
    return Chart(
        f"ms_against_frequency/{embedding}", f"Frequency and MS in {embedding}",
        "share of rows it fires on", f"MS in {embedding}", series, kind="points", log_x=True,
        note="One point per latent that has a score.",
    )  # fmt: skip
