"""Comparison table of runs and a baseline over paired seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from lightsae.errors import LightsaeError


@dataclass(frozen=True)
class RunResult:
    """What one trained model scored on the test split.

    Args:
        name: The variant, such as `baseline` or `Reg 1`; the same for all seeds.
        weight: Its regularization weight lambda.
        seed: Its seed; seeds pair it with the baseline.
        r2: Explained variance.
        mean_ms: Mean monosemanticity over the scored latents.
        median_ms: Their median.
        scored: Number of latents that have a score.
        dead: Number of latents that never fired.
        undefined: Number of latents that fired without a pair of images to compare.
        seconds: Training time in seconds.
    """

    name: str
    weight: float
    seed: int
    r2: float
    mean_ms: float
    median_ms: float
    scored: int
    dead: int
    undefined: int
    seconds: float


class PairedDifference(NamedTuple):
    """Mean of paired differences and its standard error (NaN for a single pair)."""

    mean: float
    standard_error: float


def paired_difference(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    """Compare two lists of measurements that belong together one by one.

    Args:
        a: Measurements.
        b: Measurements under the same conditions (seeds), in the same order.

    Returns:
        The mean of `a - b` and its standard error, sd / sqrt(n).

    Raises:
        LightsaeError: If the lists are empty or differ in length.

    Example:
        >>> paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
        PairedDifference(mean=2.0, standard_error=0.5773502691896258)
    """
    if len(a) != len(b) or not a:
        raise LightsaeError(f"cannot pair {len(a)} with {len(b)} measurements")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    if len(differences) == 1:
        return PairedDifference(differences[0], float("nan"))
    return PairedDifference(fmean(differences), stdev(differences) / sqrt(len(differences)))


class _Column(NamedTuple):
    """One measured column: how to read, average and print it."""

    header: str
    value: Callable[[RunResult], float]
    digits: int
    better: int  # sign of an improvement; 0 where neither direction is one


_COLUMNS = (
    _Column("R²", lambda run: run.r2, 3, 1),
    _Column("mean\nMS", lambda run: run.mean_ms, 3, 1),
    _Column("median\nMS", lambda run: run.median_ms, 3, 1),
    _Column("scored", lambda run: run.scored, 0, 0),
    _Column("dead", lambda run: run.dead, 0, -1),
    _Column("undefined", lambda run: run.undefined, 0, -1),
    _Column("time", lambda run: run.seconds, 1, 0),
)


def group_runs(rows: Sequence[RunResult]) -> dict[tuple[str, float], dict[int, RunResult]]:
    """Group runs by variant and weight, in order of appearance, then by seed.

    Args:
        rows: The runs.

    Returns:
        For each (name, weight) the run of each seed, seeds ascending.

    Raises:
        LightsaeError: If a variant has two runs of one seed.
    """
    groups: dict[tuple[str, float], dict[int, RunResult]] = {}
    for run in rows:
        group = groups.setdefault((run.name, run.weight), {})
        if run.seed in group:
            raise LightsaeError(
                f"two runs are named {run.name}, weight {run.weight:g}, {run.seed=}"
            )
        group[run.seed] = run
    return {key: dict(sorted(group.items())) for key, group in groups.items()}


def _number(value: float, digits: int, sign: str = "") -> str:
    """Print a number without a leading zero (.802), a dash where there is none."""
    if isnan(value):
        return "-"
    text = f"{value:{sign}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and digits > 1 else text


def _difference_cell(column: _Column, difference: PairedDifference) -> Text:
    """Print mean and standard error; coloured beyond two standard errors."""
    mean, error = difference
    style = ""
    if column.better and abs(mean) > 2 * error:
        style = "green" if mean * column.better > 0 else "red"
    digits = 4 if column.digits == 3 else 1
    cell = Text(_number(mean, digits, "+"), style=style)
    return cell.append(f"\n±{_number(error, digits)}", style="dim")


def comparison_table(
    rows: Sequence[RunResult],
    *,
    encoder: str,
    d_sae: int,
    baseline: str = "baseline",
    title: str = "Test split",
) -> Table:
    """Compare variants with the baseline, averaged over seeds.

    The upper part has the mean of every variant; the lower part has the mean and the standard error
    of the differences to the baseline, run by run at equal seeds, in green or red where the mean is
    beyond two standard errors.

    Args:
        rows: The runs, any number of seeds each.
        encoder: Encoder whose embeddings the monosemanticity is measured in.
        d_sae: Number of latents.
        baseline: Name of the variant that the others are compared with.
        title: Heading of the table.

    Returns:
        The table, to be printed by a `rich.console.Console`.

    Raises:
        LightsaeError: If the baseline is missing, has several weights or lacks a seed that a
            variant has, or if a variant has two runs of one seed.

    Example:
        >>> from rich.console import Console
        >>> rows = [
        ...     RunResult("baseline", 0.0, 0, 0.80, 0.50, 0.48, 60, 3, 1, 2.0),
        ...     RunResult("Reg 1", 0.1, 0, 0.80, 0.53, 0.50, 62, 2, 0, 2.5),
        ... ]
        >>> table = comparison_table(rows, encoder="vit_tiny", d_sae=64)
        >>> [column.header for column in table.columns][:3]
        ['run', 'λ', 'R²']
        >>> table.row_count
        3
    """
    groups = group_runs(rows)
    references = [group for (name, _), group in groups.items() if name == baseline]
    if len(references) != 1:
        names = ", ".join(dict.fromkeys(name for name, _ in groups))
        raise LightsaeError(f"expected one variant named {baseline!r} among: {names}")
    seeds = len(references[0])
    table = Table(
        title=f"{title} · MS under {encoder}",
        caption=f"Means over {seeds} seed{'s' * (seeds != 1)}; {d_sae} latents, MS over the scored "
        f"ones. Δ: paired difference to {baseline}, ± standard error. Time in seconds.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        caption_style="dim",
    )
    table.add_column("run", no_wrap=True, style="bold")
    for header in ("λ", *(column.header for column in _COLUMNS)):
        table.add_column(header, justify="right")
    for (name, weight), group in groups.items():
        means = [(fmean(map(c.value, group.values())), c.digits) for c in _COLUMNS]
        table.add_row(name, f"{weight:g}", *(_number(*mean) for mean in means))
    table.add_section()
    for (name, weight), group in groups.items():
        if name != baseline:
            cells = _difference_row(name, group, references[0])
            table.add_row(f"Δ {name}", f"{weight:g}", *cells)
    return table


def _difference_row(
    name: str, group: dict[int, RunResult], reference: dict[int, RunResult]
) -> list[Text]:
    """Return the cells that compare a variant with the baseline."""
    missing = sorted(group.keys() - reference.keys())
    if missing:
        raise LightsaeError(f"{name} has seeds {missing} that the baseline lacks")
    pairs = [(run, reference[seed]) for seed, run in group.items()]
    return [
        _difference_cell(
            column,
            paired_difference(
                [column.value(run) for run, _ in pairs], [column.value(other) for _, other in pairs]
            ),
        )
        for column in _COLUMNS
    ]
