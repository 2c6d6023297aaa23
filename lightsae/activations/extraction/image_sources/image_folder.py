"""The images below a folder and their classes."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from lightsae.activations.extraction.image_sources.file_listing import (
    files_below,
    is_hidden,
    stamps,
)
from lightsae.activations.extraction.image_sources.image_formats import (
    EARLIER_ENDINGS,
    image_endings,
    left_out,
)
from lightsae.errors import LightsaeError

_TOLD_CLASSES = 5


class FolderListing(NamedTuple):
    """The images below a folder.

    Attributes:
        paths: Relative to the folder, sorted.
        classes: Names of the subfolders that are classes, sorted; empty without labels.
        fingerprint: Of names, sizes and times of the images, and of classes that have none.
        notes: What was left out, a line each.
    """

    paths: list[Path]
    classes: list[str]
    fingerprint: str
    notes: list[str]


def list_images(folder: Path, begun: Collection[str] = (), *, labels: bool = True) -> FolderListing:
    """List the images below a folder, all in subfolders, which are their classes, or none.

    Args:
        folder: The folder; hidden files are left out, and what Pillow does not read.
        begun: Fingerprints of extractions that are to go on. If one is that of the fewer images
            that earlier versions listed here, those are listed.
        labels: Whether subfolders are classes; if not, images may lie anywhere.

    Raises:
        LightsaeError: If the folder is missing or holds no image, or with labels an image lies next
            to folders of them, so that it has no class.
    """
    if not folder.is_dir():
        raise LightsaeError(f"data.folder: there is no folder {folder}")
    try:
        listing = _listing(folder, labels)
    except LightsaeError:
        if (earlier := _earlier(folder, begun, 0, labels)) is None:
            raise
        return earlier
    if listing.fingerprint in begun:
        return listing
    return _earlier(folder, begun, len(listing.paths), labels) or listing


def _listing(folder: Path, labels: bool) -> FolderListing:
    """The images as they are listed now."""
    found = sorted(path.relative_to(folder) for path in files_below(folder))
    endings = image_endings()
    paths = [path for path in found if path.suffix.lower() in endings]
    others = sorted(set(found) - set(paths))
    if not paths:
        holds = f": {left_out(others)}" if others else ""
        raise LightsaeError(f"data.folder: {folder} holds no images{holds}")
    classed = labels and _in_subfolders(folder, paths)
    classes = _top_folders(folder, endings) if classed else []
    without = sorted(set(classes) - {path.parts[0] for path in paths})
    notes = [f"{folder}: {left_out(others)}"] if others else []
    fingerprint = stamps(folder, paths)
    if without:
        more = f" and {len(without) - _TOLD_CLASSES} more" if len(without) > _TOLD_CLASSES else ""
        told = ", ".join(without[:_TOLD_CLASSES]) + more
        notes.append(f"{folder}: classes without an image: {told}")
        fingerprint = f"{fingerprint}, classes without an image: {', '.join(without)}"
    if alike := _alike(classes):
        notes.append(f"{folder}: classes whose names read alike: {', '.join(alike)}")
    return FolderListing(paths, classes, fingerprint, notes)


def _alike(names: list[str]) -> list[str]:
    """Names that differ from another only in the case of letters or in how accents are coded."""
    forms = [unicodedata.normalize("NFC", name).casefold() for name in names]
    counts = Counter(forms)
    return [name for name, form in zip(names, forms, strict=True) if counts[form] > 1]


def _earlier(folder: Path, begun: Collection[str], now: int, labels: bool) -> FolderListing | None:
    """The images as earlier versions listed them, if an extraction was begun with these."""
    if not begun:
        return None
    found = (path.relative_to(folder) for path in files_below(folder, hidden=True))
    paths = sorted(path for path in found if path.suffix.lower() in EARLIER_ENDINGS)
    fingerprint = stamps(folder, paths)
    if fingerprint not in begun:
        return None
    in_folders = labels and all(len(path.parts) > 1 for path in paths)
    classes = sorted({path.parts[0] for path in paths}) if in_folders else []
    note = f"{folder}: goes on with the {len(paths)} images and the classes that it was begun with"
    other = f"; an extraction to another folder takes {now}" if now else ""
    return FolderListing(paths, classes, fingerprint, [note + other])


def _in_subfolders(folder: Path, paths: list[Path]) -> bool:
    """Whether all images are in subfolders; or else none is."""
    stray = [path for path in paths if len(path.parts) == 1]
    if stray and len(stray) < len(paths):
        raise LightsaeError(
            f"data.folder: {folder / stray[0]} is in no subfolder, expected every image "
            "in one, which is its class, or none; data.labels false takes all without them"
        )
    return not stray


def _top_folders(folder: Path, endings: Collection[str]) -> list[str]:
    """Folders in a folder, links to them and links that lead nowhere."""
    return sorted(
        name
        for name in os.listdir(folder)
        if not is_hidden(name)
        and (folder / name).suffix.lower() not in endings
        and not (folder / name).is_file()
    )
