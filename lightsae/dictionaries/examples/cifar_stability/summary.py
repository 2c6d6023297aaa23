"""What the study found, as text and figures."""

from collections.abc import Mapping
from pathlib import Path

from lightsae.dictionaries import StabilityResult
from lightsae.dictionaries.examples.cifar_stability.study import Study
from lightsae.errors import LightsaeError
from lightsae.metrics import Interval, t_interval
from lightsae.report.figures.chart import Chart, Series, draw_chart
from lightsae.report.figures.stability_charts import stability_charts


def write_summary(studies: Mapping[str, Study], folder: Path) -> str:
    """Write summary.md and figures/*.png.

    Args:
        studies: By network.
        folder: Where.

    Returns:
        The text of summary.md.

    Raises:
        LightsaeError: If it cannot be written.
    """
    parts = [_stability(studies), _asymmetry(studies), _subspaces(studies), _pooled(studies)]
    text = "\n\n".join(parts) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.md").write_text(text)
    except OSError as error:
        raise LightsaeError(f"{folder} cannot be written: {error.strerror}") from error
    for name, study in studies.items():
        for chart in stability_charts(study.seeds, name):
            draw_chart(chart, folder / "figures" / f"{chart.name.replace('/', '-')}.png")
        draw_chart(_pooled_chart(name, study), folder / "figures" / f"{name}-pooled.png")
    return text


def asymmetry(result: StabilityResult) -> Interval:
    """Share of the reconstruction of stable latents less their share of latents, over seeds."""
    return t_interval([
        each.stable.share - each.latents[0] / sum(each.latents) for each in result.reconstruction
    ])  # fmt: skip


def _stability(studies: Mapping[str, Study]) -> str:
    thresholds = next(iter(studies.values())).seeds.thresholds
    rows = []
    for name, study in studies.items():
        found = study.seeds
        for measure in sorted(found.measures):
            means = [_told(each) for each in found.mean_stability(measure)]
            rows.append([f"{name}, {measure}", *means])
        chance = {f"{each} by chance": found.shuffled[each] for each in sorted(found.shuffled)}
        chance |= {f"random ({kind})": each for kind, each in found.baselines.items()}
        for told, random in chance.items():
            rows.append([f"{name}, {told}", *(f"{each:.3f}" for each in random.mean)])
    return _table(["mean stability", *(f"{tau:g}" for tau in thresholds)], rows)


def _asymmetry(studies: Mapping[str, Study]) -> str:
    rows = []
    for name, study in studies.items():
        found, fires = study.seeds, [each.latents for each in study.seeds.reconstruction]
        shares = t_interval([pair[0] / sum(pair) for pair in fires])
        of_set = found.shares()["stable"]
        rows.append([
            name, _told(shares), _told(of_set["share"]), _told(asymmetry(found)),
            _told(of_set["per_firing"]), f"{sum(each.dead for each in found.seeds)}",
        ])  # fmt: skip
    return _table(
        ["stable latents", "share of latents", "share of the reconstruction", "difference",
         "reconstruction / share of firings", "dead, of all seeds"], rows,
    )  # fmt: skip


def _subspaces(studies: Mapping[str, Study]) -> str:
    rows = []
    for name, study in studies.items():
        found = study.seeds
        for kind, spans in (("", found.unstable), (", weighted", found.weighted)):
            rows.append([
                f"{name}{kind}", f"{', '.join(map(str, spans.ranks))} of {found.d_in}",
                _told(spans.overlap),
                *(_told(spans.beyond(each)) for each in ("random", "others", "data")),
            ])  # fmt: skip
    return _table(
        ["spans of unstable latents", "ranks", "overlap", "beyond random", "beyond stable latents",
         "beyond directions that follow the data"], rows,
    )  # fmt: skip


def _pooled(studies: Mapping[str, Study]) -> str:
    rows, first = [], next(iter(studies.values())).seeds
    for name, study in studies.items():
        for kind, found in study.parts().items():
            r2 = t_interval([each.full.r2 for each in found.reconstruction])
            dead = sum(each.dead for each in found.seeds) / len(found.seeds)
            means = [f"{each.mean:.3f}" for each in found.mean_stability()]
            rows.append([f"{name}, {kind}", f"{r2.mean:.4f}", f"{dead:.1f}", *means])
            chance = [f"{each:.3f}" for each in found.baselines["covariance"].mean]
            rows.append([f"{name}, {kind}, by chance (covariance)", "", "", *chance])
    columns = [f"stability at {tau:g}" for tau in first.thresholds]
    return _table(["dictionaries of equal size", "R2", "dead", *columns], rows)


def _pooled_chart(name: str, study: Study) -> Chart:
    series = [
        Series(kind, list(found.thresholds), [each.mean for each in found.mean_stability()], place)
        for place, (kind, found) in enumerate(study.parts().items())
    ]
    return Chart(f"{name}/pooled", f"Pooled and single dictionaries: {name}", "threshold",
                 "mean stability", series, kind="path")  # fmt: skip


def _told(interval: Interval) -> str:
    if not interval.seeds:
        return "none"
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)
