"""The comparison table: means over seeds and paired differences to a baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan

from lightsae.evaluation.comparison.run_groups import seed_groups
from lightsae.metrics import latent_differences, rank_differences, t_interval
from lightsae.report.reading.row_names import row_names
from lightsae.report.reading.run_inputs import RunInputs


@dataclass(frozen=True)
class Cell:
    """A number of the table.

    Attributes:
        mean: Over seeds; NaN where it was not measured.
        half_width: Half of the 95% interval over seeds, NaN for one seed.
        verdict: 1 where a difference is an improvement beyond its interval, -1 where it is a loss.
    """

    mean: float
    half_width: float = nan
    verdict: int = 0


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: Heading.
        help: What it means.
        digits: After the point.
        better: Sign of an improvement, 0 where neither direction is one.
        signed: Whether its numbers are differences by themselves.
    """

    title: str
    help: str
    digits: int = 3
    better: int = 0
    signed: bool = False


@dataclass
class Row:
    """The runs of one variant.

    Attributes:
        name: Its name.
        weight: lambda.
        seeds: Their number.
        runs: Positions of the runs.
        cells: One per column.
        is_difference: Whether cells are differences to the baseline.
    """

    name: str
    weight: float
    seeds: int
    runs: list[int]
    cells: list[Cell]
    is_difference: bool = False


@dataclass
class Comparison:
    """The table.

    Attributes:
        columns: Its columns.
        rows: Means of each variant.
        differences: Each variant less the baseline, at equal seeds.
    """

    columns: list[Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    differences: list[Row] = field(default_factory=list)


_Value = Callable[[RunInputs], float]
_Seeds = Mapping[int | None, RunInputs]


def mean_and_interval(values: Sequence[float]) -> Cell:
    """Mean and half of the 95% interval of Student's t over seeds.

    Args:
        values: One per seed; those that are NaN are left out.

    Example:
        >>> mean_and_interval([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
        Cell(mean=2.0, half_width=2.484..., verdict=0)
    """
    found = [value for value in values if not isnan(value)]
    if not found:
        return Cell(nan)
    interval = t_interval(found)
    return Cell(interval.mean, interval.high - interval.mean)


def compare(runs: Sequence[RunInputs], baseline: int) -> Comparison:
    """The table of some runs, the baseline first.

    Args:
        runs: The runs; those that differ in their seed alone are one row.
        baseline: The run whose variant the others are compared with.
    """
    columns = _columns(runs)
    groups = sorted(seed_groups(runs), key=lambda places: baseline not in places)
    names = row_names(runs, groups)
    table = Comparison([column for column, _ in columns])
    base = next(group for group in groups if baseline in group)
    reference = {runs[place].seed: runs[place] for place in base}
    for name, places in zip(names, groups, strict=True):
        weight, found = runs[places[0]].weight, [runs[place] for place in places]
        cells = [mean_and_interval([value(run) for run in found]) for _, value in columns]
        table.rows.append(Row(name, weight, len(found), places, cells))
        if places is not base:
            cells = [_difference(column, value, found, reference) for column, value in columns]
            table.differences.append(Row(name, weight, len(found), places, cells, True))
    if table.differences:
        _add_paired_ms(table, runs, reference)
    return table


def _scalar(name: str) -> _Value:
    def value(run: RunInputs) -> float:
        found = run.result.scalars.get(name)
        return nan if found is None else float(found)

    return value


def _columns(runs: Sequence[RunInputs]) -> list[tuple[Column, _Value]]:
    """The columns that some run has."""
    wanted: list[tuple[Column, str]] = [
        (Column("R²", "Explained variance on the split", 4, 1), "r2"),
        (Column("L0", "Latents that fire per row", 1), "l0"),
        (Column("dead", "Latents that never fire on the split", 0, -1), "dead"),
    ]
    for name in embeddings(runs):
        where = f"measured in the embeddings of {name}"
        wanted += [
            (Column(f"MS in {name}", f"Mean monosemanticity over scored latents, {where}", 3, 1),
             f"ms_mean/{name}"),
            (Column("median", f"Median over scored latents, {where}", 3, 1), f"ms_median/{name}"),
            (Column("silent as 0", f"Mean MS with dead and undefined latents as 0, {where}", 3, 1),
             f"ms_mean_with_dead_as_zero/{name}"),
            (Column("scored", f"Latents that have a score, {where}", 0, 1), f"ms_scored/{name}"),
            (Column("undefined", "Latents that fire without a pair of images to compare, "
                    f"{where}", 0, -1), f"ms_undefined/{name}"),
        ]  # fmt: skip
    wanted += [
        (Column("purity", "Share of a latent's images that are of its main class", 3, 1),
         "purity_binary"),
        (Column("weighted purity", "The same, weighted by activation", 3, 1), "purity_weighted"),
        (Column("probe AUC", "Area under accuracy against latents kept", 3, 1), "probe_auc"),
    ]  # fmt: skip
    found = [
        (column, _scalar(name))
        for column, name in wanted
        if any(run.result.scalars.get(name) is not None for run in runs)
    ]
    return found + _alignment_rates(runs)


def _alignment_rates(runs: Sequence[RunInputs]) -> list[tuple[Column, _Value]]:
    """Of each rule by which latents of some run were named; rules do not compare."""

    def rate(rule: str) -> _Value:
        return lambda run: run.aligned.get(rule, nan)

    rules = dict.fromkeys(rule for run in runs for rule in run.aligned)
    return [
        (Column(f"named, {rule}", f"Share of the alive latents with a name: {rule}", 3), rate(rule))
        for rule in rules
    ]


def embeddings(runs: Sequence[RunInputs]) -> list[str]:
    """Names of the embeddings in which some run has MS, in order of appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.result.embedding_names))


def _difference(
    column: Column, value: _Value, runs: Sequence[RunInputs], reference: _Seeds
) -> Cell:
    """A column's difference at equal seeds."""
    pairs = [(run, reference[run.seed]) for run in runs if run.seed in reference]
    return _judged(column, mean_and_interval([value(run) - value(other) for run, other in pairs]))


def _judged(column: Column, cell: Cell) -> Cell:
    """A difference and whether it is one beyond its interval."""
    beyond = column.better and abs(cell.mean) > cell.half_width
    verdict = (1 if cell.mean * column.better > 0 else -1) if beyond else 0
    return Cell(cell.mean, cell.half_width, verdict)


def _add_paired_ms(table: Comparison, runs: Sequence[RunInputs], reference: _Seeds) -> None:
    """Columns with MS over latents scored in both runs, and at equal rank."""
    for name in embeddings(runs):
        key = f"ms/{name}"
        both = Column(
            f"paired MS in {name}", "Mean difference over the latents that have a score in both "
            "runs, which pair by index as the seed is the same", 3, 1, signed=True,
        )  # fmt: skip
        count = Column("pairs", "Latents that have a score in both runs", 0, signed=False)
        rank = Column(
            "at equal rank", "Mean difference between the r-th best MS of both runs", 3, 1,
            signed=True,
        )  # fmt: skip
        table.columns += [both, count, rank]
        for row in table.rows:
            row.cells += [Cell(nan)] * 3
        for row in table.differences:
            found: list[tuple[float, int, float]] = []
            for run in (runs[place] for place in row.runs):
                other = reference.get(run.seed)
                scores = run.result.latents.get(key)
                against = None if other is None else other.result.latents.get(key)
                if scores is None or against is None:
                    continue
                paired = (nan, 0)
                if len(scores) == len(against) and run.seed is not None:
                    both_runs = latent_differences(scores, against)
                    paired = (float(both_runs.mean), both_runs.both)
                found.append((*paired, float(rank_differences(scores, against).mean)))
            row.cells += [
                _judged(both, mean_and_interval([each[0] for each in found])),
                mean_and_interval([float(each[1]) for each in found]),
                _judged(rank, mean_and_interval([each[2] for each in found])),
            ]


def other_grounds(runs: Sequence[RunInputs], baseline: int) -> list[str]:
    """Of each run what it was measured on otherwise than the baseline, a line each.

    Args:
        runs: The runs.
        baseline: The run that the others are compared with.
    """
    first = runs[baseline]
    lines = []
    for run in runs:
        grounds = zip(_grounds(run).items(), _grounds(first).values(), strict=True)
        told = [
            name for (name, mine), other in grounds if None not in (mine, other) and mine != other
        ]
        told += _other_embeddings(run, first)
        if told:
            lines.append(f"{run.name} and {first.name} do not compare: they were measured on other "
                         f"{', other '.join(told)}")  # fmt: skip
    return lines


def _grounds(run: RunInputs) -> dict[str, object]:
    about = run.result.about
    return {"splits": about.get("split"), "shards": (about.get("shards") or {}).get("digest")}


def _other_embeddings(run: RunInputs, first: RunInputs) -> list[str]:
    """Embeddings of one name that are not the same."""
    mine, theirs = (
        {each["name"]: (each.get("d_e"), _without_folder(each.get("source")))
         for each in one.result.about.get("embeddings") or []}
        for one in (run, first)
    )  # fmt: skip
    both = [name for name in mine if name in theirs]
    return [f"embeddings named {name}" for name in both if mine[name] != theirs[name]]


def _without_folder(source: object) -> str:
    """The model and layer of embeddings; each run may keep its own copy of them.

    Example:
        >>> _without_folder("runs/a/embeddings/cnn: resnet50 norm")
        'resnet50 norm'
    """
    return str(source).rpartition(": ")[2]
