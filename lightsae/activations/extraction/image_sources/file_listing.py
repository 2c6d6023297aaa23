"""Listing files below a folder, hidden ones left out, and fingerprints of files not read."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Literal

from lightsae.activations.shards.checked_read import checksum
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError

# What systems and their programs put beside the files of a user, in lower case.
_OF_SYSTEMS = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "desktop.ini",
}  # fmt: skip


def is_hidden(path: str | PurePath) -> bool:
    """Whether a file, or a folder on the way to it, is hidden or put there by a system.

    Args:
        path: Relative to the folder that was asked for, which may be hidden itself.

    Example:
        >>> [is_hidden(name) for name in ("cat/._1.jpg", "__MACOSX/1.jpg", "./cat/1.jpg")]
        [True, True, False]
    """
    return any(_is_hidden_name(part) for part in PurePath(path).parts)


def _is_hidden_name(name: str) -> bool:
    """Whether files and folders of this name are hidden."""
    return (name.startswith(".") and name != "..") or name.lower() in _OF_SYSTEMS


def files_below(
    folder: Path, *, hidden: bool = False, within: tuple[tuple[int, int], ...] = ()
) -> Iterator[Path]:
    """The files below a folder, pipes and devices left out.

    Links to folders are followed, but not to one that they lie in.

    Args:
        folder: The folder.
        hidden: List hidden files and those in hidden folders too.
        within: Device and number of each folder that it was reached through.

    Raises:
        LightsaeError: If a folder cannot be read.

    Example:
        >>> any(path.name == "file_listing.py" for path in files_below(Path(__file__).parent))
        True
    """
    try:
        found = folder.stat()
        here = (found.st_dev, found.st_ino)
        if here in within:
            return
        with os.scandir(folder) as listing:
            shown = [entry for entry in listing if hidden or not _is_hidden_name(entry.name)]
            entries = [(entry.name, _kind(entry)) for entry in shown]
    except OSError as error:
        raise LightsaeError(f"data.folder: {folder} cannot be read: {reason(error)}") from error
    for name, kind in entries:
        if kind == "folder":
            yield from files_below(folder / name, hidden=hidden, within=(*within, here))
        elif kind == "file":
            yield folder / name


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "other"]:
    """What an entry of a folder is, or a link leads to; one that leads nowhere is a file."""
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "file"
    if entry.is_dir():
        return "folder"
    # To open a pipe would be to wait for whoever writes to it.
    return "file" if entry.is_file() else "other"


def stamp(path: Path) -> str:
    """Size and time of a file, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def stamps(folder: Path, paths: Iterable[Path]) -> str:
    """A fingerprint of files: another name, size or time of change makes another one.

    Args:
        folder: Where they are; it may be another one the next time.
        paths: The files, relative to the folder.

    Example:
        >>> stamps(Path("/nowhere"), [Path("a.tar")])
        'names, sizes and times 98e6639a3c940473'
    """
    listing = "\n".join(f"{path.as_posix()} {stamp(folder / path)}" for path in paths)
    return f"names, sizes and times {checksum(listing.encode(errors='surrogateescape')):016x}"
