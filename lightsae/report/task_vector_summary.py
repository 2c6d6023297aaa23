"""The tables an experiment on a task vector ends in."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightsae.interventions.task_vectors.conclusion import ALPHA, against, conclude
from lightsae.interventions.task_vectors.result import Arm, TaskVectorResult


def task_vector_table(result: TaskVectorResult) -> Table:
    """Right answers of every arm on the task and elsewhere.

    Args:
        result: The experiment.

    Returns:
        The table, to be printed by a `rich.console.Console`; z in green or red where p < 5%.
    """
    base = result.arms[0]
    table = _table(
        f"Test samples · {result.n_layers} of {len(result.readings)} layers",
        "Right answers in % and their 95% interval: Wilson's, of random arms the quantiles "
        "of draws. z: two-proportion test against the base; below it p of McNemar's exact test "
        "of the same samples. "
        "Spans: the vector projected in all layers; layers: the raw vector in some.",
    )
    table.add_column("", no_wrap=True)
    for header in ("layers", "energy"):
        table.add_column(header, justify="right", no_wrap=True)
    for samples in (result.task, *result.elsewhere):
        table.add_column(samples, justify="right", no_wrap=True)
        table.add_column("z", justify="right", no_wrap=True)
    for arm in result.arms:
        cells: list[str | Text] = [arm.name, _layers(arm, result), f"{100 * arm.energy:.1f}%"]
        for samples in (result.task, *result.elsewhere):
            low, high = (100 * end for end in arm.interval(samples))
            cells.append(Text(f"{100 * arm.share(samples):.1f}", style="bold").append(
                f"\n[{low:.1f}, {high:.1f}]", style="not bold dim"
            ))  # fmt: skip
            cells.append(_z(result, arm, base, samples))
        table.add_row(*cells)
    return table


def layer_table(result: TaskVectorResult) -> Table:
    """What the autoencoder of each layer says.

    Args:
        result: The experiment.
    """
    table = _table(
        "Layers",
        "Energy: share of the vector's. Kept: on the span of the most task-specific "
        "latents, of rank r, beside r / d and 95% of random subspaces.",
    )
    for header in ("layer", "specificity", "energy", "kept", "r / d", "random"):
        table.add_column(header, justify="left" if header == "layer" else "right", no_wrap=True)
    for layer, reading in result.readings.items():
        kept = reading.kept
        table.add_row(
            layer, f"{reading.specificity:.2f}", f"{100 * reading.energy:.1f}%",
            f"{100 * kept.kept:.1f}%", f"{kept.rank} / {kept.d} = {100 * kept.baseline:.1f}%",
            f"[{100 * kept.low:.1f}, {100 * kept.high:.1f}]",
        )  # fmt: skip
    return table


def conclusion_lines(result: TaskVectorResult) -> list[Text]:
    """A line for each claim: whether it holds, and by which figures.

    Args:
        result: The experiment.
    """
    lines = []
    for finding in conclude(result):
        mark = Text("yes ", style="green") if finding.holds else Text("no  ", style="red")
        lines.append(mark.append(f"{finding.claim}: ", style="bold").append(
            finding.figures, style="not bold default"
        ))  # fmt: skip
    return lines


def tell_task_vectors(result: TaskVectorResult, console: Console) -> None:
    """Print the tables and the conclusion.

    Args:
        result: The experiment.
        console: Where to.
    """
    console.print(layer_table(result))
    console.print(task_vector_table(result))
    for line in conclusion_lines(result):
        console.print(line, highlight=False)


def _table(title: str, caption: str) -> Table:
    return Table(
        title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        title_style="bold", caption_style="dim",
    )  # fmt: skip


def _layers(arm: Arm, result: TaskVectorResult) -> str:
    """Numbers of layers, or the layers themselves where they are few."""
    if not arm.layers:
        return "-"
    if arm.draws > 1 and arm.energy < 1 and len(arm.layers) > result.n_layers:
        return f"{arm.draws} draws"
    if len(arm.layers) == len(result.readings):
        return "all"
    return ", ".join(layer.rpartition(".")[2] for layer in arm.layers)


def _z(result: TaskVectorResult, arm: Arm, base: Arm, samples: str) -> Text:
    if arm is base or arm.draws > 1:
        return Text("")
    test = against(result, arm.name, base.name, samples)
    style = "" if test.p_value >= ALPHA else "green" if test.difference > 0 else "red"
    found = Text(f"{test.z:+.2f}", style=style)
    paired = arm.paired_p_value(samples)
    if paired is not None:
        least = f"{paired:.3f}".removeprefix("0") if paired >= 0.001 else "<.001"
        found.append(f"\n{least}", style="dim")
    return found
