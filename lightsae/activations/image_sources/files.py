"""Files that images come from: told apart without being read."""

from collections.abc import Iterable
from pathlib import Path

from lightsae.activations.raw import checksum


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
