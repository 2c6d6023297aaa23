"""What `lightsae scaling` prints, and its figure."""

from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from lightsae.planning.scaling import ScalingResult
from lightsae.plural import counted
from lightsae.report.scaling.figure import draw_scaling
from lightsae.report.scaling.tables import (
    budget_table,
    compute_table,
    held_out_table,
    law_facts,
    parameter_table,
    size_table,
)

FIGURE = "scaling.png"


def show_scaling(result: ScalingResult, out: Path | None, console: Console) -> None:
    """Print the laws; write the figure beside scaling.json.

    Args:
        result: The laws.
        out: The folder of scaling.json, or None.
        console: Where to print.

    Raises:
        MissingExtraError: If there is a figure to write and matplotlib is not installed.
    """
    console.print(scaling_summary(result))
    if out is not None:
        draw_scaling(result, out / FIGURE)
        console.print(f"{out}: scaling.json, {FIGURE}", markup=False, highlight=False,
                      soft_wrap=True)  # fmt: skip


def scaling_summary(result: ScalingResult) -> Group:
    """Tables, what the fit is worth, and what is not determined.

    Args:
        result: The laws.

    Returns:
        To be printed by a `rich.console.Console`.
    """
    tables = [parameter_table(result), size_table(result), compute_table(result)]
    if result.held_out:
        tables.append(held_out_table(result))
    if result.budgets:
        tables.append(budget_table(result))
    facts = [Text(each) for each in law_facts(result)]
    notes = [Text(each, "yellow") for each in result.notes]
    if result.left_out:
        notes.append(Text(f"Left out, {counted(len(result.left_out), 'run')}:", "yellow"))
        notes += [Text(f"  {each.name}: {each.reason}", "dim") for each in result.left_out]
    return Group(*tables, *facts, *notes)
