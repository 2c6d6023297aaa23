"""The steps of the demo: each is a command of the package, which is shown and run."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import perf_counter

from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track

from lightsae.activations import ActivationDataModule, extract
from lightsae.activations.extraction.layer_folder import is_complete
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.extras import require
from lightsae.files import replacing
from lightsae.report.command import report
from lightsae.report.comparison_summary import comparison_summary
from lightsae.report.sweep_summary import tell_sweep
from lightsae.runs import evaluate_run
from lightsae.runs.sweep import SweepFile
from lightsae.runs.sweep.command import SweepCLI
from lightsae.runs.sweep.grid import BASELINE
from lightsae.runs.sweep.sweep_file import GRID

_DIGITS = "lightsae.activations.sources.digits"
_COPIES = 8
_CONFIG = files("lightsae.demo") / "sweep.yaml"
# What the folder's own configuration has in the place of lines of the one in the package.
_PATH, _SEEDS = "path: shards/digits", "seed: [0, 1, 2, 3, 4]"


@dataclass(frozen=True)
class Places:
    """Where things are in the folder of the demo.

    Example:
        >>> Places(Path("runs/demo")).embeddings
        PosixPath('runs/demo/activations/digits-cnn')
    """

    folder: Path

    @property
    def activations(self) -> Path:
        """Shards of the ViT, a row for each image."""
        return self.folder / "activations" / "digits-vit"

    @property
    def embeddings(self) -> Path:
        """Shards of the second network over the same images; their name is that of E.

        Copies of a digit share a sample and have its token indices in the same order in both
        folders, so that each copy is judged by its own embedding.
        """
        return self.folder / "activations" / "digits-cnn"

    @property
    def config(self) -> Path:
        """The configuration of the sweep."""
        return self.folder / "sweep.yaml"

    @property
    def sweep(self) -> Path:
        """The folder of the sweep."""
        return self.folder / "sweep"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"


def run_steps(folder: Path, seeds: int) -> None:
    """Do what is not done yet, and show the commands that do the same.

    Args:
        folder: For everything that is made.
        seeds: Seeds of each autoencoder.

    Raises:
        LightsaeError: If the folder holds a demo with another number of seeds, or a step refuses.
        MissingExtraError: If what the page needs is not installed.
    """
    console, start, places = Console(), perf_counter(), Places(folder)
    require("jinja2", extra="demo")  # before work is lost
    write_config(places, seeds)
    _extract(console, "1 Activations of a small ViT", "vit", "blocks.3", places.activations)
    _extract(console, "2 Embeddings E of a small CNN", "cnn", "4", places.embeddings)
    words = ["sweep", "--config", str(places.config), "--run_dir", str(places.sweep)]
    _show(console, "3 A grid of autoencoders; lambda by the validation split", words)
    sweep = SweepCLI(words)
    tell_sweep(sweep.sweep_file, console)
    _evaluate(console, places, chosen_runs(sweep.sweep_file), sweep.datamodule)
    words = ["report", str(places.sweep), "--out", str(places.report)]
    _show(console, "5 The page", words)
    console.print(comparison_summary([places.sweep]))
    report(words[1:])
    console.print(f"{perf_counter() - start:.0f} s in all. The page, for any browser:")
    console.print(str(places.report), markup=False, highlight=False, soft_wrap=True)


def write_config(places: Places, seeds: int) -> None:
    """Write the configuration of the sweep, with the paths of this folder.

    Args:
        places: The folder.
        seeds: Number of seeds.

    Raises:
        LightsaeError: If there is another: what is in the folder was made with that.
    """
    text = _CONFIG.read_text(encoding="utf-8")
    for line, own in (
        (_PATH, f"path: {json.dumps(str(places.activations))}"),
        (_SEEDS, f"seed: {list(range(seeds))}"),
    ):
        assert text.count(line) == 1, line
        text = text.replace(line, own)
    if places.config.exists() and places.config.read_text(encoding="utf-8") != text:
        raise LightsaeError(
            f"{places.config} is not what --seeds {seeds} asks for: choose another --run_dir, or "
            "give the commands by hand"
        )
    places.folder.mkdir(parents=True, exist_ok=True)
    with replacing(places.config) as temporary:
        temporary.write_text(text, encoding="utf-8")


def chosen_runs(file: SweepFile) -> list[str]:
    """Names of the baseline's runs and of those with the lambdas that were chosen.

    Args:
        file: A sweep that is done.
    """
    chosen = {(BASELINE, 0.0), *((choice.variant, choice.weight) for _, choice in file.choices)}
    return [
        name
        for name, result in file.stages[GRID].items()
        if result.state == "trained" and (result.point.variant, result.point.weight) in chosen
    ]


def _extract(console: Console, title: str, network: str, layer: str, out: Path) -> None:
    """Shards of one of the two networks, which is trained where its weights are not there."""
    words = [
        "extract", "--model.module", f"{_DIGITS}.train_digits_{network}",
        "--model.arguments", json.dumps({"folder": str(out.parent.parent / "encoders")}),
        "--layer", layer, "--tokens", "class" if network == "vit" else "pooled",
        "--data.dataset", f"{_DIGITS}.Digits", "--data.arguments", json.dumps({"copies": _COPIES}),
        "--batch_size", "256", "--device", "cpu", "--out", str(out),
    ]  # fmt: skip
    _show(console, title, words)
    if not is_complete(out):
        auto_cli(extract, args=words[1:], as_positional=False, exit_on_error=False)


def _evaluate(
    console: Console, places: Places, names: Sequence[str], data: ActivationDataModule
) -> None:
    """What `lightsae test` would write into each run; finished ones are left alone."""
    runs = [places.sweep / "members" / name for name in names]
    words = [
        "test", "--config", str(runs[0] / "config.yaml"), "--run_dir", str(runs[0]),
        "--evaluation.embeddings", f"[{places.embeddings}]", "--evaluation.probes", "false",
    ]  # fmt: skip
    title = f"4 Evaluation on the test split, of this run and {len(runs) - 1} more"
    _show(console, title, words)
    left = [run for run in runs if not _is_evaluated(run)]
    data.setup("test")
    for run in track(left, "evaluate", console=Console(stderr=True), transient=True):
        evaluate_run(run, data, [str(places.embeddings)], show_progress=False)


def _is_evaluated(run: Path) -> bool:
    try:
        EvaluationResult.load(run)
    except LightsaeError:
        return False
    return True


def _show(console: Console, title: str, words: Sequence[str]) -> None:
    """One line that says what comes, and the command for it."""
    console.print(f"[bold]{title}[/]", highlight=False)
    command = shlex.join(["lightsae", *words])
    console.print(f"  {command}", style="dim", markup=False, highlight=False, soft_wrap=True)
