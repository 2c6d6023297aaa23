"""Listing files below a folder, and fingerprints of files that are not read."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightsae.activations.shards.checked_read import checksum
from lightsae.errors import LightsaeError
from lightsae.messages import reason


def files_below(folder: Path, within: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """The files below a folder, links to folders followed, but not to one that they lie in.

    Args:
        folder: The folder.
        within: Device and number of each folder that it was reached through.

    Raises:
        LightsaeError: If a folder cannot be read.

    Example:
        >>> any(path.name == "files.py" for path in files_below(Path(__file__).parent))
        True
    """
    try:
        found = folder.stat()
        here = (found.st_dev, found.st_ino)
        with os.scandir(folder) as listing:
            entries = [] if here in within else [(e.name, _is_folder(e)) for e in listing]
    except OSError as error:
        raise LightsaeError(f"data.folder: {folder} cannot be read: {reason(error)}") from error
    for name, is_folder in entries:
        if is_folder:
            yield from files_below(folder / name, (*within, here))
        else:
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is one, or a link to one; a link to itself is none."""
    if entry.is_symlink():
        return os.path.isdir(entry.path)
    return entry.is_dir()


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
