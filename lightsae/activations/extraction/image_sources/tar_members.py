"""The files in a plain tar, grouped into the samples of WebDataset, and where they lie."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from lightsae.activations.extraction.image_sources.file_listing import is_hidden
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError

_BLOCK = 512
_PIECE = 1 << 20


class Member(NamedTuple):
    """Where a file lies in a tar."""

    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes; a tar that became shorter is an error."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.tar} ends {self.size - len(data)} bytes too early")
        return data


def samples_of(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """The samples of a tar, members that share a name up to its first dot and follow each other.

    Args:
        path: A plain tar.

    Returns:
        Of each sample its name, and its members by extension in lower case; hidden files are left
        out, those in hidden folders are not.

    Raises:
        LightsaeError: If the tar is not whole, or a member is there twice, a symbolic link, or a
            hard link out of it.
    """
    key, members = "", dict[str, Member]()
    for name, member in _members(path):
        folder, _, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        extension = extension.lower()
        if f"{folder}/{stem}" != key and members:
            yield key.lstrip("/"), members
            members = {}
        key = f"{folder}/{stem}"
        if extension in members:
            raise LightsaeError(f"{path}: {name} is there twice, expected it once")
        members[extension] = member
    if members:
        yield key.lstrip("/"), members


def _members(path: Path) -> Iterator[tuple[str, Member]]:
    """Name and place of the files of a tar, which must be whole; a hard link is its target."""
    targets: dict[str, Member] | None = None
    for entry in _entries(path):
        if is_hidden(PurePath(entry.name).name):
            continue
        if entry.issym():
            raise LightsaeError(
                f"{path}: {entry.name} is a symbolic link, expected files and hard links (tar "
                "--dereference packs what it leads to)"
            )
        if entry.isfile():
            yield entry.name, Member(path, entry.offset_data, entry.size)
        if entry.islnk():
            targets = _files(path) if targets is None else targets
            if entry.linkname not in targets:
                raise LightsaeError(
                    f"{path}: {entry.name} is a hard link to {entry.linkname}, expected a file of "
                    "this tar"
                )
            targets[entry.name] = targets[entry.linkname]
            yield entry.name, targets[entry.name]


def _files(path: Path) -> dict[str, Member]:
    """The files of a tar by name, links left out."""
    return {
        entry.name: Member(path, entry.offset_data, entry.size)
        for entry in _entries(path)
        if entry.isfile()
    }


def _entries(path: Path) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar, which must be whole."""
    hint = "(random access needs a plain, whole tar)"
    try:
        with tarfile.open(path, "r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # they would pile up
                yield entry
            end = tar.offset
        tail = Member(path, end, _BLOCK).read()
        rest = _first_byte(path, end + _BLOCK)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise LightsaeError(f"{path}: is truncated or no tar: {reason(error)} {hint}") from error
    if any(tail):
        raise LightsaeError(
            f"{path}: is damaged at byte {end}, expected a member or the end {hint}"
        )
    if rest is not None:
        raise LightsaeError(
            f"{path}: goes on behind its end at byte {rest}, expected one tar (tar -A joins "
            "several)"
        )


def _first_byte(path: Path, start: int) -> int | None:
    """Where the first byte that is not 0 lies in the rest of a file; a tar ends with zeros."""
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            if rest := piece.lstrip(b"\0"):
                return file.tell() - len(rest)
    return None
