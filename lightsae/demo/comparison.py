"""The whole study: data, the choice of lambda, paired seeds, table and pictures."""

import platform
from importlib import metadata
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lightsae.demo.data import ENCODER, prepare
from lightsae.demo.pictures import draw_galleries
from lightsae.demo.results import save_results
from lightsae.demo.study import (
    REGULARIZERS,
    Fit,
    Scores,
    choose_weight,
    explain_choice,
    explain_differences,
    grid_fits,
    one_process_per_core,
    paired_fits,
    train_all,
    undecided,
)
from lightsae.report import comparison_table, pareto_figure

GRID_SEEDS = tuple(range(100, 104))
# For the weights that a few seeds do not tell apart from the baseline.
MORE_SEEDS = tuple(range(104, 124))
SEEDS_NOTE = "these seeds are others than those above"
_VERSIONS = ("torch", "lightning", "numpy", "timm", "scikit-learn", "lightsae")


def compare(out: Path, seeds: int) -> None:
    """Make the data, choose lambda, fit over paired seeds, print the table and draw the pictures.

    Args:
        out: Folder for shards, trained autoencoders, results and pictures.
        seeds: Paired seeds of the comparison.
    """
    console, start = Console(), perf_counter()
    setting = prepare(out, console)
    with one_process_per_core() as pool:

        def train(title: str, fits: list[Fit]) -> dict[Fit, Scores]:
            with _progress(console) as progress:
                task = progress.add_task(title, total=len(fits))
                return train_all(
                    pool, fits, setting, out / "saes", lambda _: progress.advance(task)
                )

        grid = train("grid on the validation split", grid_fits(GRID_SEEDS))
        unclear = [(name, w) for name in REGULARIZERS for w in undecided(name, grid.values())]
        more = paired_fits(unclear, MORE_SEEDS)
        tried = grid | (train("more seeds for close ones", more) if more else {})
        choices = [choose_weight(name, tried.values()) for name in REGULARIZERS]
        chosen = [choice[:2] for choice in choices]
        compared = paired_fits(chosen, range(seeds))
        final = train(f"{seeds} paired seeds", compared)
    results = [final[fit].test for fit in compared]
    save_results(out / "results.json", tried.values(), final.values())
    pareto_figure(
        [scores.validation for scores in grid.values()], out / "grid.png", encoder=ENCODER
    )
    galleries = draw_galleries(out, [fit for fit in compared if fit.seed == 0], setting)
    console.print(comparison_table(results, encoder=ENCODER, d_sae=setting.d_sae))
    for choice in choices:
        console.print(f"  {explain_choice(choice)}", style="dim", highlight=False)
        differences = explain_differences(choice.variant, tried.values())
        console.print(f"  {differences}", style="dim", highlight=False)
    console.print(f"  {SEEDS_NOTE}", style="dim", highlight=False)
    console.print(f"  {_versions()}", style="dim", highlight=False)
    for path in [out / "grid.png", *galleries]:
        console.print(f"  {path}")
    console.print(f"{perf_counter() - start:.0f} s in all")


def _versions() -> str:
    """What the figures were made with."""
    installed = ", ".join(f"{name} {metadata.version(name)}" for name in _VERSIONS)
    return f"Python {platform.python_version()}, {installed}"


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    return Progress(*columns, console=console)
