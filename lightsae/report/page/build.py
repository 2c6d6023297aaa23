"""From run folders to the page."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightsae.activations.shards.dtypes import Array
from lightsae.extras import require
from lightsae.report.latents.image_keys import sample_of
from lightsae.report.page import latent_data
from lightsae.report.page.contents import (
    SpriteIndex,
    add_partners,
    charts_of,
    run_contents,
)
from lightsae.report.page.latent_data import LatentData
from lightsae.report.page.packing import ArrayPack, json_text
from lightsae.report.page.render import write_page
from lightsae.report.page.stability_section import (
    Stabilities,
    read_stabilities,
    stability_chart_contents,
    stability_sections,
)
from lightsae.report.page.steering_section import (
    Steerings,
    read_steerings,
    steering_chart_contents,
    steering_sections,
)
from lightsae.report.page.thumbnails import make_thumbnails, sheet_index, sheet_texts
from lightsae.report.reading.comparison import compare, other_grounds
from lightsae.report.reading.run_inputs import (
    RunInputs,
    choose_baseline,
    holds_runs,
    read_runs,
    read_sweep,
)
from lightsae.report.sweep_summary import explained_choices
from lightsae.runs.side_by_side.compared import stability_folders

_MOST_GALLERIES = 4
# What the page has beside data and thumbnails: style, script, table.
_TEMPLATE_BYTES = 110_000


@dataclass
class ReportOptions:
    """What a report is made of.

    Attributes:
        runs: Run folders, or folders of them; folders of steerings and of comparisons of seeds.
        out: The HTML file.
        images: Where images come from, if not from where the shards say.
        baseline: Name or folder of the run that the others are compared with.
        top: Strongest images of each latent.
        between: Images of the middle, and weakest ones.
        max_mb: Megabytes that the file has at most.
    """

    runs: Sequence[Path]
    out: Path
    images: str | None = None
    baseline: Path | None = None
    top: int = 10
    between: int = 5
    max_mb: float = 24.0


def build_report(options: ReportOptions) -> Path:
    """Write the page.

    Args:
        options: What it is made of.

    Returns:
        The file.

    Raises:
        LightsaeError: If a run was not evaluated, a file is not what it should be, or the page
            cannot be written.
        MissingExtraError: If Jinja2 or, where there are images, Pillow is not installed.
    """
    require("jinja2", extra="report")  # before work is lost
    console = Console(stderr=True)
    steerings, stabilities = read_steerings(options.runs), read_stabilities(options.runs)
    run_folders = [
        each for each in options.runs
        if each not in steerings and (holds_runs(each) or not stability_folders(each))
    ]  # fmt: skip
    if not run_folders:
        _write_without_runs(options.out, steerings, stabilities)
        _tell(console, options.out, [])
        return options.out
    runs = read_runs(run_folders)
    baseline = choose_baseline(runs, options.baseline)
    table = compare(runs, baseline)
    shown = runs_shown(runs, baseline)
    notes = other_grounds(runs, baseline)
    if len(shown) < len(runs):
        told = ", ".join(run.name for run in shown)
        notes.append(f"{len(runs)} runs are compared; the latents of {told} are shown")
    with _bars(console) as progress:
        data = [
            latent_data.read(run, top=options.top, between=options.between, progress=progress)
            for run in shown
        ]
        pack, index = ArrayPack(), SpriteIndex(data)
        contents: dict[str, Any] = {
            "runs": [run_contents(place, each, index, pack) for place, each in enumerate(data)],
            "pairs": add_partners(data, pack, 0),
            "charts": [
                *charts_of(runs),
                *steering_chart_contents(steerings),
                *stability_chart_contents(stabilities),
            ],
            "identity": " ".join(f"{run.name} {run.result.about.get('date')}" for run in shown),
        }
        _add_labels(data, index, pack)
        arrays = pack.text()
        contents["index"] = pack.index
        spent = len(arrays) + len(json_text(contents)) + _TEMPLATE_BYTES
        budget = max(0, int((options.max_mb * 1e6 - spent) * 3 / 4))  # base64 adds a third
        sprites = make_thumbnails(options.images, data, index, budget, progress, notes)
    notes += [note for each in data for note in each.notes]
    contents |= {"sheets": sheet_index(sprites, index), "notes": notes}
    write_page(
        options.out, runs=runs, baseline=baseline, table=table, contents=contents, arrays=arrays,
        sheets=sheet_texts(sprites), chosen=_chosen(run_folders, runs),
        steerings=steering_sections(steerings), stabilities=stability_sections(stabilities),
    )  # fmt: skip
    _tell(console, options.out, notes)
    return options.out


def _write_without_runs(out: Path, steerings: Steerings, stabilities: Stabilities) -> None:
    """A page of steerings and stabilities alone."""
    charts = steering_chart_contents(steerings) + stability_chart_contents(stabilities)
    contents: dict[str, Any] = {
        "runs": [], "pairs": [], "sheets": [], "notes": [], "index": {}, "identity": "",
        "charts": charts,
    }  # fmt: skip
    write_page(
        out, runs=[], baseline=0, table=None, contents=contents, arrays=ArrayPack().text(),
        sheets=[], chosen=[], steerings=steering_sections(steerings),
        stabilities=stability_sections(stabilities),
    )  # fmt: skip


def runs_shown(runs: Sequence[RunInputs], baseline: int) -> list[RunInputs]:
    """Runs whose latents are shown: the baseline, the others of its seed, then the rest."""
    first = runs[baseline]
    seed = first.result.about.get("seed")

    def order(run: RunInputs) -> tuple[bool, bool]:
        return run is not first, run.result.about.get("seed") != seed

    return sorted(runs, key=order)[:_MOST_GALLERIES]


def _chosen(folders: Sequence[Path], runs: Sequence[RunInputs]) -> list[str]:
    """What a sweep among the folders chose for the settings of the runs."""
    sweep = read_sweep(folders)
    if sweep is None:
        return []
    members = (sweep.path.parent / "members").resolve()
    names = [run.folder.resolve() for run in runs]
    return explained_choices(sweep, {path.name for path in names if path.parent == members})


def _tell(console: Console, out: Path, notes: Sequence[str]) -> None:
    """What is missing, and what was written."""
    for note in notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False, soft_wrap=True)
    size = out.stat().st_size / 1e6
    console.print(f"{out}: {size:.1f} MB", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bars(console: Console) -> Iterator[latent_data.Progress]:
    """Progress bars, each begun by its title and total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bars:

        def begin(title: str, total: int) -> latent_data.Tick:
            task = bars.add_task(title, total=total)
            return lambda count: bars.advance(task, count)

        yield begin


def _add_labels(data: Sequence[LatentData], index: SpriteIndex, pack: ArrayPack) -> None:
    """Sample and class of every image."""
    keys: Array = np.concatenate([np.zeros(0, np.int64), *index.keys])
    labels: Array = np.full(len(keys), -1, np.int64)
    begins = np.cumsum([0, *map(len, index.keys)])
    for place, each in enumerate(data):
        group = index.group_of(place)
        part = slice(begins[group], begins[group + 1])
        found = each.labels_of(keys[part])
        labels[part] = np.where(labels[part] < 0, found, labels[part])
    pack.add("sample", sample_of(keys))
    pack.add("label", labels)
