"""The tables of the stability of seeds."""

from dataclasses import dataclass
from math import isfinite

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lightsae.dictionaries import StabilityResult, SubspaceComparison
from lightsae.dictionaries.subspaces.between_seeds import Baseline
from lightsae.metrics import Interval
from lightsae.report.figures.stability_charts import BASELINES, MEASURES

_DASH = "\u2013"
Cell = tuple[str, str]


@dataclass(frozen=True)
class StabilityTable:
    """Figures with their intervals.

    Attributes:
        heading: What stands above the first column.
        columns: Headings of the others.
        rows: Name and cells, value and interval as texts.
    """

    heading: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


def stability_tables(result: StabilityResult) -> list[StabilityTable]:
    """Mean stability at each threshold beside random dictionaries; stable beside unstable latents.

    Args:
        result: The stability.
    """
    measures = [
        (f"by {told}", [_cell(each) for each in result.mean_stability(name)])
        for name, told in MEASURES.items() if name in result.measures
    ]  # fmt: skip
    chance = [(f"{told} by chance", result.shuffled[name]) for name, told in MEASURES.items()
              if name in result.shuffled]  # fmt: skip
    chance += [(told, result.baselines[kind]) for kind, told in BASELINES.items()
               if kind in result.baselines]  # fmt: skip
    random = [(told, [_range(*each) for each in zip(*found, strict=True)])
              for told, found in chance]  # fmt: skip
    return [
        StabilityTable("mean stability", [f"{tau:g}" for tau in result.thresholds],
                       [*measures, *random]),
        StabilityTable("latents", ["stable", "unstable", "difference"], _sets(result)),
    ]  # fmt: skip


def _sets(result: StabilityResult) -> list[tuple[str, list[Cell]]]:
    """Rows that tell stable from unstable latents."""
    fires = [each.latents for each in result.reconstruction]
    counts = [(f"{sum(each[side] for each in fires) / len(fires):.1f}", "") for side in (0, 1)]
    rows = [("number, mean over seeds", [*counts, (_DASH, "")])]
    shares = result.shares()
    for key, told in (
        ("share", "share of the reconstruction"),
        ("per_latent", "that share / share of latents"),
        ("per_firing", "that share / share of firings"),
    ):
        rows.append((told, [*(_cell(shares[s][key]) for s in ("stable", "unstable")), (_DASH, "")]))
    for name, each in result.differences().items():
        rows.append((name, [_cell(each.stable), _cell(each.unstable), _cell(each.difference)]))
    return rows


def stability_facts(result: StabilityResult) -> list[str]:
    """Sentences: what was measured, what stable means, and what the unstable latents span."""
    dead = sum(each.dead for each in result.seeds)
    sizes = ", ".join(dict.fromkeys(str(each.d_sae) for each in result.seeds))
    cut = result.cut
    facts = [
        f"{len(result.seeds)} seeds of d_sae {sizes} over {result.rows:,} rows; {dead} latents "
        "never fire and are left out. Intervals: 95% over seeds; of random dictionaries least and "
        "largest mean.",
        f"Stable: a latent that, at {cut.threshold:g}, a share of {cut.share:g} of the other seeds "
        "or more have.",
    ]
    facts += [
        _spans(name, spans, result.d_in)
        for name, spans in (("Spans of the unstable latents", result.unstable),
                            ("Weighted by their activations they", result.weighted))
        if isfinite(spans.overlap.mean)
    ]  # fmt: skip
    return facts


def _spans(name: str, spans: SubspaceComparison, d_in: int) -> str:
    """A sentence on the overlap of spans."""
    baselines: tuple[tuple[Baseline, str], ...] = (
        ("random", "random subspaces"),
        ("others", "the spans of as many stable latents"),
        ("data", "directions that follow the data"),
    )
    beyond = "; ".join(
        f"{_told(spans.beyond(each))} beyond {told}"
        for each, told in baselines
        if isfinite(spans.beyond(each).mean)
    )
    ranks = ", ".join(map(str, spans.ranks))
    return f"{name} (ranks {ranks} of {d_in}) overlap by {_told(spans.overlap)}: {beyond}."


def stability_table(result: StabilityResult, title: str) -> Group:
    """Tables and sentences, to be printed by a `rich.console.Console`.

    Args:
        result: The stability.
        title: Name of the setting.
    """
    parts: list[Table | Text] = [Text(f"\nStability: {title}", "bold")]
    for found in stability_tables(result):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(found.heading, overflow="fold")
        for heading in found.columns:
            table.add_column(escape(heading), justify="right")
        for name, cells in found.rows:
            table.add_row(Text(name), *(_terminal(*cell) for cell in cells))
        parts.append(table)
    return Group(*parts, *(Text(fact, "dim") for fact in stability_facts(result)))


def _terminal(value: str, ends: str) -> Text:
    return Text(value).append(f"\n{ends}" if ends else "", "dim")


def _cell(interval: Interval) -> Cell:
    return _range(interval.mean, interval.low, interval.high)


def _range(mean: float, low: float, high: float) -> Cell:
    if not isfinite(mean):
        return _DASH, ""
    ends = f"{_number(low)} to {_number(high)}" if isfinite(low) and isfinite(high) else ""
    return _number(mean), ends


def _told(interval: Interval) -> str:
    value, ends = _cell(interval)
    return f"{value} ({ends})" if ends else value


def _number(value: float) -> str:
    """A figure to three digits.

    Example:
        >>> _number(0.71234), _number(12.3456), _number(0.0004)
        ('0.712', '12.3', '0.0004')
    """
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:.3g}"
