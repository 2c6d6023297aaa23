"""The formats there are.

A format is a module of `lightsae.interop.formats` with what `Format` lists, entered in `FORMATS`.
"""

from itertools import islice
from pathlib import Path
from typing import Protocol

from lightsae.errors import LightsaeError
from lightsae.interop.formats import (
    dictionary_learning,
    gemma_scope,
    llama_scope,
    openai,
    openmoss,
    overcomplete,
    prisma,
    saelens,
    saev,
    sparsify,
    visaebench,
)
from lightsae.sae import SparseAutoencoder

# Folders beside what is of no format, and how many of them are named.
_LOOKED_AT, _NAMED = 64, 3


class Format(Protocol):
    """What a module of `lightsae.interop.formats` offers.

    Attributes:
        NAME: As the command line has it.
        FILES: What its files are, for people.
        TRANSCODERS: Whether `files` takes a `Transcoder`.
    """

    NAME: str
    FILES: str
    TRANSCODERS: bool

    def recognizes(self, path: Path) -> bool:
        """Whether a file or folder is of the format, from names and keys; never raises."""
        ...

    def read(self, path: Path) -> SparseAutoencoder:
        """The autoencoder of a file or folder, with its provenance.

        Raises:
            LightsaeError: Naming file and key, if it is malformed or cannot be represented.
        """
        ...

    def files(self, sae: SparseAutoencoder) -> dict[str, bytes]:
        """The files of an autoencoder by name; nothing is written.

        Raises:
            LightsaeError: If the format cannot hold it.
        """
        ...


FORMATS: dict[str, Format] = {
    form.NAME: form
    for form in (
        saelens,
        sparsify,
        dictionary_learning,
        saev,
        overcomplete,
        openai,
        gemma_scope,
        llama_scope,
        prisma,
        openmoss,
        visaebench,
    )
}


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        LightsaeError: Listing those there are.

    Example:
        >>> format_named("saelens").NAME
        'saelens'
    """
    if name not in FORMATS:
        raise LightsaeError(f"format is {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(path: Path) -> Format:
    """The format of a file or folder.

    Raises:
        LightsaeError: If it is of none, or of several.
    """
    found = [form for form in FORMATS.values() if form.recognizes(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(form.NAME for form in found)
        raise LightsaeError(f"{path} may be of {names}: say which with --format")
    near = _near(path)
    if near:
        raise LightsaeError(f"{path} is of no known format by itself, but there is {near}")
    known = "; ".join(f"{form.NAME}: {form.FILES}" for form in FORMATS.values())
    raise LightsaeError(f"{path} is of no known format: {known}")


def _near(path: Path) -> str:
    """Folders that are of a format where a file of one was given, or a folder of several."""
    around = path.absolute().parents[:2] if path.is_file() else sorted(path.glob("*/"))
    told = (
        f"{form.NAME} in {folder}"
        for folder in around[:_LOOKED_AT]
        for form in FORMATS.values()
        if form.recognizes(folder)
    )
    return ", ".join(islice(told, _NAMED))
