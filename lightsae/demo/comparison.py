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
    BASELINE,
    REGULARIZERS,
    Fit,
    Scores,
    Setting,
    choose_weight,
    explain_choice,
    explain_differences,
    grid_fits,
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
    grid = _train(console, "grid on the validation split", grid_fits(GRID_SEEDS), setting, out)
    unclear = [(name, w) for name in REGULARIZERS for w in undecided(name, grid.values())]
    more = paired_fits(unclear, MORE_SEEDS)
    tried = grid | (
        _train(console, "more seeds for close ones", more, setting, out) if more else {}
    )
    choices = [choose_weight(name, tried.values()) for name in REGULARIZERS]
    compared = [
        Fit(name, weight, seed)
        for seed in range(seeds)
        for name, weight in [(BASELINE, 0.0), *(choice[:2] for choice in choices)]
    ]
    final = _train(console, f"{seeds} paired seeds", compared, setting, out)
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


def _train(
    console: Console, title: str, fits: list[Fit], setting: Setting, out: Path
) -> dict[Fit, Scores]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=len(fits))
        return train_all(fits, setting, out / "saes", lambda _: progress.advance(task))
