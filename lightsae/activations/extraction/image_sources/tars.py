"""Images in WebDataset tars, read at random through an index of the members."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from lightsae.activations.extraction.image_sources.files import is_hidden, stamps
from lightsae.activations.extraction.models import closest
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.messages import reason

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm")
_BLOCK = 512


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


class Sample(NamedTuple):
    """The image of a sample and its label."""

    key: str
    image: Member
    label: int | None


class Tars:
    """The samples of WebDataset tars: members that share a name up to its first dot.

    What follows the dot is the extension; of `v2.jpg` the last part counts where none is `jpg`.
    Hidden members, and those in hidden folders, are left out. The index is made in memory from the
    members' headers; no image is read for it.

    Args:
        pattern: Path of a tar; braces and wildcards name several: `train-{0000..0146}.tar`.
        image: Extension of the images; by default any of the usual ones.
        label: Extension of the labels, text files of one integer; by default `cls`, if there.

    Attributes:
        classes: Empty: tars have numbers for labels.
        fingerprint: Of the names, sizes and times of the tars.

    Raises:
        LightsaeError: If a tar is missing, compressed or truncated, holds no image of that
            extension (the closest are offered), two of one sample, a member twice or a symbolic
            link, or a sample has no integer label where others do.

    Example:
        >>> Tars("nowhere-{0..1}.tar")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: data.webdataset: there is no file nowhere-0.tar
    """

    def __init__(self, pattern: str, image: str | None = None, label: str | None = None) -> None:
        self.classes: list[str] = []
        paths = _paths(pattern)
        self._samples: list[Sample] = []
        extensions: set[str] = set()
        for path in paths:
            for key, members in _grouped(path):
                extensions |= members.keys()
                where = f"{path}: {key}"
                found = _only(members, (image,) if image else _IMAGES, where, "image")
                if found is not None:
                    text = _only(members, (label or "cls",), where, "label")
                    number = _label(text, f"{key}.{label or 'cls'}")
                    self._samples.append(Sample(key, found, number))
        if not self._samples:
            asked = f"no member .{image}{closest(image, extensions)}" if image else "no images"
            holds = ", ".join(sorted(extensions))
            raise LightsaeError(f"data.image_key: {pattern} has {asked} (it has {holds})")
        self._labelled = self._all_labelled(pattern, label, extensions)
        self.fingerprint = f"{stamps(Path(), [Path(path) for path in paths])} {image} {label}"

    def _all_labelled(self, pattern: str, label: str | None, extensions: set[str]) -> bool:
        """Whether samples have labels: all or none."""
        without = [sample for sample in self._samples if sample.label is None]
        if len(without) == len(self._samples):
            if _like(extensions, label or "cls"):
                raise LightsaeError(
                    f"data.label_key: {pattern} has no member .{label or 'cls'} next to its image; "
                    "expected the members of a sample one after another"
                )
            if label is None:
                return False
            raise LightsaeError(
                f"data.label_key: {pattern} has no member .{label}{closest(label, extensions)}"
            )
        if without:
            raise LightsaeError(
                f"{without[0].image.tar}: {without[0].key} has no .{label or 'cls'}, "
                "expected a label for every image or for none: add it next to its image, or name "
                "labels that all have with data.label_key"
            )
        return True

    def __len__(self) -> int:
        """Number of images."""
        return len(self._samples)

    def __getitem__(self, position: int) -> Any:
        """The image, with its label where there are labels."""
        key, member, label = self._samples[position]
        open_image = require("PIL.Image", extra="vision").open
        try:
            image = open_image(io.BytesIO(member.read()))
            image.load()
        except Exception as error:
            raise OSError(f"{key} in {member.tar}: {reason(error)}") from error
        return (image, label) if self._labelled else image


def _paths(pattern: str) -> list[Path]:
    """The tars that a pattern names, in its order; each must be there."""
    names = [pattern]
    if "{" in pattern:
        try:
            names = list(require("braceexpand", extra="data").braceexpand(pattern))
        except ValueError as error:
            raise LightsaeError(
                f"data.webdataset is {pattern!r}: {reason(error)}; expected pairs of braces, such "
                "as train-{0000..0146}.tar"
            ) from error
    paths: list[Path] = []
    for name in names:
        found = [name] if os.path.isfile(name) else _matching(name)
        if not found:
            raise LightsaeError(f"data.webdataset: there is no file {name}")
        paths += [Path(path) for path in found]
    return paths


def _matching(pattern: str) -> list[str]:
    """The files of a pattern, hidden ones only where it says so."""
    asked = Path(pattern).parts
    return [
        name
        for name in sorted(glob(pattern))
        if not any(
            is_hidden(part) and not wanted.startswith(".") and part != wanted
            for part, wanted in zip(Path(name).parts, asked, strict=True)
        )
    ]


def _grouped(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Samples of a tar: members by extension; those of one sample follow each other."""
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
        if is_hidden(entry.name):
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
    except (tarfile.TarError, OSError, EOFError) as error:
        raise LightsaeError(f"{path}: is truncated or no tar: {reason(error)} {hint}") from error
    if any(tail):
        raise LightsaeError(
            f"{path}: is damaged at byte {end}, expected a member or the end {hint}"
        )


def _only(
    members: dict[str, Member], extensions: tuple[str, ...], where: str, kind: str
) -> Member | None:
    """The member of one of the extensions, if there is one; two are one too many."""
    exact = [name for name in members if name in extensions]
    found = exact or [name for name in members if name.rpartition(".")[2] in extensions]
    if len(found) > 1:
        raise LightsaeError(
            f"{where} has {' and '.join(f'.{name}' for name in found)}, expected one {kind} for "
            f"each name up to its first dot; data.{kind}_key says which extension is meant"
        )
    return members[found[0]] if found else None


def _like(extensions: Iterable[str], wanted: str) -> bool:
    """Whether one of the extensions is the wanted one, or ends with it."""
    return any(wanted in (name, name.rpartition(".")[2]) for name in extensions)


def _label(member: Member | None, name: str) -> int | None:
    """The integer in a label's file."""
    if member is None:
        return None
    text = member.read().decode(errors="replace").strip()
    try:
        return int(text)
    except ValueError:
        raise LightsaeError(f"{member.tar}: {name} is {text[:40]!r}, expected an integer") from None
