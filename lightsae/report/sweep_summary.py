"""The table a sweep ends in."""

from collections.abc import Collection, Mapping, Sequence
from math import isnan
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightsae.plural import counted
from lightsae.runs.sweep.choice import Choice, mean_and_error
from lightsae.runs.sweep.grid import BASELINE
from lightsae.runs.sweep.sweep_file import GRID, Result, SweepFile

_CHOSEN = "←"
_SETTING = ("k", "d_sae", "lr")
Setting = tuple[int, int, float | None]


def sweep_table(file: SweepFile) -> Table:
    """Every lambda of a sweep beside its baseline, averaged over seeds, and which was chosen.

    Args:
        file: A sweep that is done.

    Returns:
        The table, to be printed by a `rich.console.Console`. Differences are paired by seed; green
        and red are beyond two standard errors.
    """
    results = list(file.stages.get(GRID, {}).values())
    settings = list(dict.fromkeys(result.point.setting for result in results))
    varied = [place for place in range(len(_SETTING)) if len({s[place] for s in settings}) > 1]
    fixed = ", ".join(
        f"{name} = {_shown(settings[0][place])}"
        for place, name in enumerate(_SETTING)
        if settings and place not in varied and settings[0][place] is not None
    )
    table = Table(
        title=f"Validation split · {fixed}" if fixed else "Validation split",
        caption="Means over seeds. Δ R²: paired difference to the baseline, ± standard error. "
        f"{_CHOSEN} what the rule chooses.",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold", caption_style="dim",
    )  # fmt: skip
    table.add_column("run", no_wrap=True, style="bold")
    for header in (*(_SETTING[place] for place in varied), "λ", "R²", "Δ R²", "L0", "dead",
                   "seeds", ""):  # fmt: skip
        table.add_column(header, justify="right", no_wrap=True)
    chosen = {
        (setting, choice.variant): choice.weight
        for setting, choice in file.choices
        if choice.keeps_r2
    }
    for setting in settings:
        own = [_shown(setting[place]) for place in varied]
        _add_setting(table, own, [r for r in results if r.point.setting == setting], chosen)
        table.add_section()
    return table


def tell_sweep(file: SweepFile, console: Console) -> None:
    """Print the table and the choices.

    Args:
        file: A sweep that is done.
        console: Where to.
    """
    console.print(sweep_table(file))
    for text in explained_choices(file):
        console.print(f"  {text}", style="dim", markup=False, highlight=False)


def explained_choices(file: SweepFile, members: Collection[str] | None = None) -> list[str]:
    """A sentence on each lambda that was chosen, and on what that leaves open.

    Args:
        file: A sweep that is done.
        members: Names of autoencoders; only what was chosen for their settings and regularizers is
            told. By default everything is.
    """
    points = [result.point for result in file.stages.get(GRID, {}).values()]
    told = {(p.setting, p.variant) for p in points if members is None or p.name in members}
    return [
        f"{_named(setting, choice)}: {_explained(choice)}"
        for setting, choice in file.choices
        if (setting, choice.variant) in told
    ]


def _named(setting: Setting, choice: Choice) -> str:
    values = zip(_SETTING, setting, strict=True)
    told = [f"{name} = {_shown(value)}" for name, value in values if value is not None]
    return ", ".join([choice.variant, *told])


def _explained(choice: Choice) -> str:
    if choice.weight is None:
        return "no λ has a run for every seed of the baseline"
    error = "" if isnan(choice.standard_error) else f" ± {choice.standard_error:.4f}"
    found = f"{choice.difference:+.4f}{error}, {counted(choice.seeds, 'seed')}"
    if not choice.keeps_r2:
        return f"no λ keeps the baseline's R²; λ = {choice.weight:g} costs least ({found})"
    edge = "; it is the largest that was tried" if choice.is_largest else ""
    return f"λ = {choice.weight:g} is the largest that keeps the baseline's R² ({found}){edge}"


def _add_setting(
    table: Table,
    own: Sequence[str],
    results: Sequence[Result],
    chosen: Mapping[tuple[Setting, str], float | None],
) -> None:
    """A row for each regularizer and lambda, the baseline first."""
    rows: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        rows.setdefault((result.point.variant, result.point.weight), []).append(result)
    baseline = {r.point.seed: r.r2 for r in rows.get((BASELINE, 0.0), ()) if r.state == "trained"}
    for variant, weight in sorted(rows, key=lambda row: (row[0] != BASELINE, row)):
        found = rows[variant, weight]
        trained = [result for result in found if result.state == "trained"]
        here = chosen.get((found[0].point.setting, variant)) == weight
        table.add_row(
            variant, *own, f"{weight:g}", _mean(trained, "r2", 4),
            Text("") if variant == BASELINE else _difference(trained, baseline),
            _mean(trained, "l0", 1), _mean(trained, "dead", 1), _seeds(found, trained),
            Text(_CHOSEN if here else "", style="bold"),
        )  # fmt: skip


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _mean(results: Sequence[Result], name: str, digits: int) -> str:
    values = [result.validation[name] for result in results if name in result.validation]
    return f"{fmean(values):.{digits}f}" if values else "-"


def _difference(results: Sequence[Result], baseline: Mapping[int, float]) -> Text:
    pairs = [r.r2 - baseline[r.point.seed] for r in results if r.point.seed in baseline]
    mean, error = mean_and_error(pairs)
    if isnan(mean):
        return Text("-")
    style = ("green" if mean > 0 else "red") if abs(mean) > 2 * error else ""
    cell = Text(f"{mean:+.4f}", style=style)
    return cell if isnan(error) else cell.append(f"\n±{error:.4f}", style="dim")


def _seeds(found: Sequence[Result], trained: Sequence[Result]) -> Text:
    failed = len(found) - len(trained)
    cell = Text(str(len(trained)))
    return cell.append(f"\n{failed} failed", style="red") if failed else cell
