"""From run folders to the page."""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.extras import MissingExtraError
from lightsae.report.images.sample_images import SampleImages, images_at, images_of_shards
from lightsae.report.images.sprites import Sprites, make_sprites
from lightsae.report.latents.image_keys import sample_of
from lightsae.report.page.contents import (
    SpriteIndex,
    add_partners,
    charts_of,
    run_contents,
)
from lightsae.report.page.latent_data import LatentData, latent_data
from lightsae.report.page.packing import ArrayPack, json_text
from lightsae.report.page.render import write_page
from lightsae.report.reading.comparison import compare
from lightsae.report.reading.run_inputs import (
    choose_baseline,
    read_runs,
    read_sweep,
)

_THUMBNAIL = 112
_MOST_GALLERIES = 4
_TEMPLATE_BYTES = 110_000


@dataclass
class _Thumbnails:
    """The sheets of one group of images."""

    sprites: Sprites | None = None
    source: SampleImages | None = None


@dataclass
class ReportOptions:
    """What a report is made of.

    Attributes:
        runs: Run folders, or folders of them.
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
    notes: list[str] = field(default_factory=list)


def build_report(options: ReportOptions) -> Path:
    """Write the page.

    Args:
        options: What it is made of.

    Returns:
        The file.

    Raises:
        LightsaeError: If a run was not evaluated, a file is not what it should be, or the page
            cannot be written.
    """
    runs = read_runs(options.runs)
    baseline = choose_baseline(runs, options.baseline)
    table = compare(runs, baseline)
    charts = charts_of(runs)
    shown = [runs[baseline], *(run for run in runs if run is not runs[baseline])]
    console = Console(stderr=True)
    notes = list(options.notes)
    if len(shown) > _MOST_GALLERIES:
        told = ", ".join(run.name for run in shown[:_MOST_GALLERIES])
        notes.append(f"{len(runs)} runs are compared; the latents of {told} are shown")
        shown = shown[:_MOST_GALLERIES]
    with _bars(console) as progress:
        data = [
            latent_data(run, top=options.top, between=options.between, progress=progress)
            for run in shown
        ]
        pack = ArrayPack()
        index = SpriteIndex(data)
        contents: dict[str, Any] = {
            "runs": [run_contents(place, each, index, pack) for place, each in enumerate(data)],
            "pairs": add_partners(data, pack, 0),
            "charts": charts,
        }
        _add_labels(data, index, pack)
        arrays = pack.text()
        spent = len(arrays) + len(json_text(contents)) + _TEMPLATE_BYTES
        budget = int((options.max_mb * 1e6 - spent) * 3 / 4)
        thumbnails = _thumbnails(options.images, data, index, max(budget, 0), progress, notes)
    contents["sheets"] = _sheet_index(thumbnails, index)
    notes += [note for each in data for note in each.notes]
    identity = " ".join(f"{run.name} {run.result.about.get('date')}" for run in shown)
    contents |= {"index": pack.index, "notes": notes, "identity": identity}
    write_page(
        options.out, runs=runs, baseline=baseline, table=table, contents=contents, arrays=arrays,
        sheets=_all_sheets(thumbnails),
        sweep=read_sweep(options.runs),
    )  # fmt: skip
    _tell(console, options.out, notes)
    return options.out


def _all_sheets(thumbnails: Sequence[_Thumbnails]) -> list[str]:
    """Sheets of all groups of images, base64."""
    sheets = [sheet for each in thumbnails if each.sprites for sheet in each.sprites.sheets]
    return [base64.b64encode(sheet).decode() for sheet in sheets]


def _tell(console: Console, out: Path, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False, soft_wrap=True)
    size = out.stat().st_size / 1e6
    console.print(f"{out}: {size:.1f} MB", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Progress bars, each begun by its title and total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bars:

        def begin(title: str, total: int) -> Callable[[int], object]:
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


def _thumbnails(
    path: str | None,
    data: Sequence[LatentData],
    index: SpriteIndex,
    budget: int,
    progress: Callable[[str, int], Callable[[int], object]],
    notes: list[str],
) -> list[_Thumbnails]:
    """Sheets of each group of images, none where there are no images."""
    found = []
    for group, keys in enumerate(index.keys):
        first = next(each for place, each in enumerate(data) if index.group_of(place) == group)
        share = budget * len(keys) // max(len(index), 1)
        source = _source(path, first, notes) if len(keys) else None
        if source is None:
            found.append(_Thumbnails())
            continue
        tick = progress("thumbnails", len(keys))
        sprites = make_sprites(keys.tolist(), source.pixels, share, tick)
        if len(sprites.missing) == len(keys):
            raise LightsaeError(
                f"{source.name}: has none of the {len(keys)} images that are shown: "
                "are they those that the shards were made of?"
            )
        if sprites.missing:
            notes.append(f"{source.name}: {len(sprites.missing)} images could not be read")
        found.append(_Thumbnails(sprites, source))
    return found


def _source(path: str | None, data: LatentData, notes: list[str]) -> SampleImages | None:
    """Images of a run; None if there are none, which is noted."""
    if path is not None:
        return images_at(path, data.manifest, _THUMBNAIL)
    why = "numbers of samples stand for images (--images PATH names them)"
    if data.manifest is None:
        notes.append(
            f"{data.run.name}: without its shards nothing says which images these are: {why}"
        )
        return None
    try:
        return images_of_shards(data.manifest, _THUMBNAIL)
    except MissingExtraError:
        raise
    except LightsaeError as error:
        notes.append(f"{data.run.name}: {error}: {why}")
        return None


def _sheet_index(thumbnails: Sequence[_Thumbnails], index: SpriteIndex) -> list[dict[str, Any]]:
    """Of each group of images where they lie in which sheets."""
    found, first_sheet, first_image = [], 0, 0
    for each, keys in zip(thumbnails, index.keys, strict=True):
        sprites = each.sprites
        found.append({
            "first": first_image, "count": len(keys), "sheet": first_sheet,
            "columns": sprites.columns if sprites else 0, "rows": sprites.rows if sprites else 0,
            "side": sprites.side if sprites else 0, "mime": sprites.mime if sprites else "",
            "missing": [first_image + place for place in sprites.missing] if sprites else [],
        })  # fmt: skip
        first_sheet += len(sprites.sheets) if sprites else 0
        first_image += len(keys)
    return found
