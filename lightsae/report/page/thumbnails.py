"""The thumbnails of a page: whose images they are, and where each lies in which sheet."""

import base64
from collections.abc import Sequence
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.extras import MissingExtraError
from lightsae.report.images.sample_images import SampleImages, images_at, images_of_shards
from lightsae.report.images.sprites import Sprites, make_sprites
from lightsae.report.page.contents import SpriteIndex
from lightsae.report.page.latent_data import LatentData, Progress

_SIDE = 112
_INSTEAD = "numbers of samples stand for images (--images PATH names them)"


def make_thumbnails(
    path: str | None,
    data: Sequence[LatentData],
    index: SpriteIndex,
    budget: int,
    progress: Progress,
    notes: list[str],
) -> list[Sprites | None]:
    """Sheets of each group of images.

    Args:
        path: Where images are, as a user gave it; None for where the shards say.
        data: The runs.
        index: Their images.
        budget: Bytes of all sheets.
        progress: Begins a bar.
        notes: Takes a line on what is missing.

    Returns:
        Of each group its sheets, None where there are no images.

    Raises:
        LightsaeError: If there are no images at the path, or none of those that are shown.
    """
    found: list[Sprites | None] = []
    for group, keys in enumerate(index.keys):
        first = next(each for place, each in enumerate(data) if index.group_of(place) == group)
        source = _source(path, first, notes) if len(keys) else None
        if source is None:
            found.append(None)
            continue
        share = budget * len(keys) // len(index)
        tick = progress("thumbnails", len(keys))
        sprites = make_sprites(keys.tolist(), source.pixels, share, tick)
        if len(sprites.missing) == len(keys):
            raise LightsaeError(
                f"{source.name}: has none of the {len(keys)} images that are shown: "
                "are they those that the shards were made of?"
            )
        if sprites.missing:
            notes.append(f"{source.name}: {len(sprites.missing)} images could not be read")
        found.append(sprites)
    return found


def _source(path: str | None, data: LatentData, notes: list[str]) -> SampleImages | None:
    """Images of a run; None if there are none, which is noted."""
    if path is not None:
        return images_at(path, data.manifest, _SIDE)
    if data.manifest is None:
        notes.append(f"{data.run.name}: without its shards its images are not known: {_INSTEAD}")
        return None
    try:
        return images_of_shards(data.manifest, _SIDE)
    except MissingExtraError:
        raise
    except LightsaeError as error:
        notes.append(f"{data.run.name}: {error}: {_INSTEAD}")
        return None


def sheet_index(sprites: Sequence[Sprites | None], index: SpriteIndex) -> list[dict[str, Any]]:
    """Of each group of images where they lie in which sheets, for the page's script."""
    found, first_sheet, first_image = [], 0, 0
    for each, keys in zip(sprites, index.keys, strict=True):
        columns, rows, side, mime = (
            (each.columns, each.rows, each.side, each.mime) if each else (0, 0, 0, "")
        )
        missing = [first_image + place for place in each.missing] if each else []
        found.append({
            "first": first_image, "count": len(keys), "sheet": first_sheet, "columns": columns,
            "rows": rows, "side": side, "mime": mime, "missing": missing,
        })  # fmt: skip
        first_sheet += len(each.sheets) if each else 0
        first_image += len(keys)
    return found


def sheet_texts(sprites: Sequence[Sprites | None]) -> list[str]:
    """Sheets of all groups of images one after another, base64."""
    sheets = [sheet for each in sprites if each is not None for sheet in each.sheets]
    return [base64.b64encode(sheet).decode() for sheet in sheets]
