"""Images in WebDataset tars, read at random through an index of the members."""

import io
import os
import re
from collections.abc import Collection, Iterable
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from lightsae.activations.extraction.image_sources.file_listing import is_hidden, stamps
from lightsae.activations.extraction.image_sources.image_formats import (
    EARLIER_ENDINGS,
    by_ending,
    image_endings,
    open_image,
)
from lightsae.activations.extraction.image_sources.tar_members import Member, samples_of
from lightsae.activations.extraction.models import closest
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_USUAL = tuple(ending.lstrip(".") for ending in EARLIER_ENDINGS)


class Sample(NamedTuple):
    """The image of a sample and its label."""

    key: str
    image: Member
    label: int | None


class _Index(NamedTuple):
    """What the headers of tars tell.

    Attributes:
        samples: Those with an image.
        extensions: Of all members.
        without: Extensions of the samples that have no image.
        more: Whether earlier versions had other samples.
    """

    samples: list[Sample]
    extensions: set[str]
    without: list[list[str]]
    more: bool


class Tars:
    """The samples of WebDataset tars: members that share a name up to its first dot.

    What follows the dot is the extension; of `v2.jpg` the last part counts where none is `jpg`.
    Hidden members, and those in hidden folders, are left out. The index is made in memory from the
    members' headers; no image is read for it.

    Args:
        pattern: Path of a tar; braces and wildcards name several: `train-{0000..0146}.tar`.
        image: Extension of the images; by default a usual one (jpg, png, ...), or else any that
            Pillow reads.
        label: Extension of the labels, text files of one integer; by default `cls`, if there.
        begun: Fingerprints of extractions that are to go on. If one is that of the fewer images
            that earlier versions found in these tars, those are taken.
        labels: Whether to look for labels.

    Attributes:
        classes: Empty: tars have numbers for labels.
        fingerprint: Of the names, sizes and times of the tars.
        notes: What was left out, a line each.

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

    def __init__(
        self,
        pattern: str,
        image: str | None = None,
        label: str | None = None,
        begun: Collection[str] = (),
        *,
        labels: bool = True,
    ) -> None:
        self.classes: list[str] = []
        self.notes: list[str] = []
        paths = _paths(pattern)
        self.fingerprint = f"{stamps(Path(), paths)} {image} {label}"
        earlier = self.fingerprint in begun
        wanted = (label or "cls") if labels else None
        self._samples, extensions, without, more = _index(paths, image, wanted, earlier)
        if not self._samples:
            asked = f"no member .{image}{closest(image, extensions)}" if image else "no images"
            holds = ", ".join(sorted(extensions)) or ("hidden members only" if more else "nothing")
            raise LightsaeError(f"data.image_key: {pattern} has {asked} (it has {holds})")
        self._labelled = labels and self._all_labelled(pattern, label, extensions)
        if more and not earlier:
            self.fingerprint = f"{self.fingerprint}, {len(self._samples)} images"
        if without:
            missing = f"member .{image}" if image else "image that Pillow reads"
            count = "1 sample has" if len(without) == 1 else f"{len(without)} samples have"
            held = by_ending(f".{extension}" for held in without for extension in held)
            self.notes.append(f"{pattern}: {count} no {missing}: {held}")

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
                "labels that all have with data.label_key, or take none with data.labels false"
            )
        return True

    def __len__(self) -> int:
        """Number of images."""
        return len(self._samples)

    def __getitem__(self, position: int) -> Any:
        """The image, with its label where there are labels."""
        key, member, label = self._samples[position]
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


def _index(paths: list[Path], image: str | None, label: str | None, earlier: bool) -> _Index:
    """Read the headers of tars, as earlier versions did or as this one."""
    samples: list[Sample] = []
    extensions: set[str] = set()
    without: list[list[str]] = []
    more = False
    others = () if image else tuple(ending.lstrip(".") for ending in image_endings())
    for path in paths:
        for key, members in samples_of(path):
            where = f"{path}: {key}"
            usual = _only(members, (image,) if image else _USUAL, where, "image")
            found = usual
            if not earlier:
                hidden = is_hidden(key)
                found = None if hidden else usual or _only(members, others, where, "image")
                more |= found != usual
                if hidden:
                    continue
            extensions |= members.keys()
            if found is None:
                without.append(sorted({*members} - {label}))
                continue
            text = _only(members, (label,), where, "label") if label else None
            samples.append(Sample(key, found, _label(text, f"{key}.{label}")))
    return _Index(samples, extensions, without, more)


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
    if not _INTEGER.fullmatch(text) or not -(1 << 63) <= int(text) < 1 << 63:
        raise LightsaeError(f"{member.tar}: {name} is {text[:40]!r}, expected an integer")
    return int(text)
