"""Images in WebDataset tars, found at random through an index of their members."""

import io
import os
import tarfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from lightsae.activations.image_sources.files import stamps
from lightsae.activations.models import closest
from lightsae.activations.told import told
from lightsae.errors import LightsaeError
from lightsae.extras import require

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

    The index is made in memory from the members' headers; no image is read for it.

    Args:
        pattern: Path of a tar; braces and wildcards name several: `train-{0000..0146}.tar`.
        image: Extension of the images; by default any of the usual ones.
        label: Extension of the labels, text files of one integer; by default `cls`, if there.

    Attributes:
        classes: Empty: tars have numbers for labels.
        fingerprint: Of the names, sizes and times of the tars.

    Raises:
        LightsaeError: If a tar is missing, compressed or truncated, holds no image of that
            extension (the closest are offered), or a sample has no integer label where others do.

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
                found = _first(members, (image,) if image else _IMAGES)
                if found is not None:
                    number = _label(members.get(label or "cls"), f"{key}.{label or 'cls'}")
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
            if label is None:
                return False
            raise LightsaeError(
                f"data.label_key: {pattern} has no member .{label}{closest(label, extensions)}"
            )
        if without:
            raise LightsaeError(
                f"{without[0].image.tar}: {without[0].key} has no .{label or 'cls'}, "
                "expected a label for every image or for none"
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
            raise OSError(f"{key} in {member.tar}: {told(error)}") from error
        return (image, label) if self._labelled else image


def _paths(pattern: str) -> list[Path]:
    """The tars that a pattern names, in its order; each must be there."""
    names = [pattern]
    if "{" in pattern:
        names = list(require("braceexpand", extra="data").braceexpand(pattern))
    paths: list[Path] = []
    for name in names:
        found = sorted(glob(name)) if not os.path.isfile(name) else [name]
        if not found:
            raise LightsaeError(f"data.webdataset: there is no file {name}")
        paths += [Path(path) for path in found]
    return paths


def _grouped(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Samples of a tar: members by extension; those of one sample follow each other."""
    key, members = "", dict[str, Member]()
    for name, member in _members(path):
        folder, _, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if f"{folder}/{stem}" != key and members:
            yield key.lstrip("/"), members
            members = {}
        key = f"{folder}/{stem}"
        members[extension.lower()] = member
    if members:
        yield key.lstrip("/"), members


def _members(path: Path) -> Iterator[tuple[str, Member]]:
    """Name and place of every file of a tar, which must be whole."""
    hint = "(random access needs a plain, whole tar)"
    try:
        with tarfile.open(path, "r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # they would pile up
                if entry.isfile():
                    yield entry.name, Member(path, entry.offset_data, entry.size)
            end = tar.offset
        tail = Member(path, end, _BLOCK).read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise LightsaeError(f"{path}: is truncated or no tar: {told(error)} {hint}") from error
    if any(tail):
        raise LightsaeError(
            f"{path}: is damaged at byte {end}, expected a member or the end {hint}"
        )


def _first(members: dict[str, Member], extensions: tuple[str, ...]) -> Member | None:
    """The member of the first extension that is there."""
    return next((members[name] for name in extensions if name in members), None)


def _label(member: Member | None, name: str) -> int | None:
    """The integer in a label's file."""
    if member is None:
        return None
    text = member.read().decode(errors="replace").strip()
    try:
        return int(text)
    except ValueError:
        raise LightsaeError(f"{member.tar}: {name} is {text[:40]!r}, expected an integer") from None
