"""The tables of arXiv 2606.27321 for a study, as rich tables and as Markdown."""

import re
from statistics import fmean

from replication.comparison import points
from replication.study import Study
from rich.table import Table

from lightsae.metrics import Interval

Cells = list[list[str]]


def table_1(found: Study) -> Cells:
    """R2, MS and silent latents; differences from the baseline with 95% t intervals."""
    d_sae, shown = found.setting.d_sae, ("R2", "R2 at 2k", "mean MS", "mean MS, silent as 0")
    cells = [["", "lambda", *shown, "MS, scored in both", "dead", "undefined"]]
    for each in found.lines:
        figures = [_figure(each.figures[name], each.differences.get(name)) for name in shown]
        counts = [f"{each.figures[name].mean:.0f}" for name in ("dead", "undefined")]
        both = each.differences.get("MS, scored in both")
        cells.append(
            [each.fit.variant, f"{each.fit.weight:g}", *figures,
             "" if both is None else signed(both), *counts]
        )  # fmt: skip
    cells[0][-2] = f"dead of {d_sae}"
    return cells


def table_2(found: Study) -> Cells:
    """Class purity, a mean over seeds."""
    cells = [["", "binary", "weighted"]]
    for variant, by_seed in found.details.items():
        purity = [each.purity for each in by_seed.values()]
        if purity and purity[0]:
            means = (fmean(each[name] for each in purity) for name in ("binary", "weighted"))
            cells.append([variant, *map(short, means)])
    return cells


def table_3(found: Study) -> Cells:
    """Truncated probes, a mean over seeds."""
    names = ("auc", "top-1 at 1", "top-1 at 8", "top-1 at 32")
    cells = [["", "normalised AUC", *names[1:]]]
    for variant, by_seed in found.details.items():
        probes = [each.probe for each in by_seed.values()]
        if probes and probes[0]:
            means = (fmean(each[name] for each in probes) for name in names)
            cells.append([variant, *map(short, means)])
    return cells


def table_4(found: Study) -> Cells:
    """Dead latents and MS with the batch-active mask and without."""
    masked = {each.fit.variant: each for each in found.lines}
    cells = [["", "lambda", "dead, masked", "dead, unmasked", "silent, masked",
              "silent, unmasked", "mean MS, masked", "mean MS, unmasked"]]  # fmt: skip
    for without in found.unmasked:
        pair = masked[without.fit.variant], without
        counts = [f"{each.figures[n].mean:.0f}" for n in ("dead", "silent") for each in pair]
        scores = [short(each.figures["mean MS"].mean) for each in pair]
        cells.append([without.fit.variant, f"{without.fit.weight:g}", *counts, *scores])
    return cells


def acceptance(found: Study) -> Cells:
    """What Reg 1 and Reg 2 are to reach, and by how much it is missed."""
    cells = [["", "wanted", "measured", "short by"]]
    for each in found.lines:
        if each.fit.variant in ("Reg 1", "Reg 2"):
            for point in points(each, found.setting.d_sae):
                missed = short(point.short) if point.short else ""
                cells.append([each.fit.variant, point.name, signed(point.measured), missed])
    return cells


def markdown(cells: Cells) -> str:
    """A table as Markdown."""
    rule = "|".join("---" for _ in cells[0])
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def rich_table(title: str, cells: Cells) -> Table:
    """A table for the terminal."""
    table = Table(title=title)
    for number, name in enumerate(cells[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in cells[1:]:
        table.add_row(*row)
    return table


def _figure(value: Interval, difference: Interval | None) -> str:
    text = short(value.mean)
    return text if difference is None else f"{text} ({signed(difference)})"


def signed(interval: Interval) -> str:
    """A difference and, of more than one seed, the half width of its interval."""
    half = (interval.high - interval.low) / 2
    digits = 1 if max(abs(interval.mean), half) >= 1 else 4
    text = f"{interval.mean:+.{digits}f}"
    if interval.seeds > 1:
        text += f" ± {half:.{digits}f}"
    return re.sub(r"(?<!\d)0\.", ".", text)


def short(value: float, digits: int = 3) -> str:
    """A share without its zero, another figure with one digit."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.1f}"
