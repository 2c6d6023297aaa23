"""Paths as a user gives them, and atomic writes: a crash leaves the old file or the new one."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lightsae.errors import LightsaeError

# An option that is a name: YAML reads that of the folder 2024 as a number, `expanded` or `str`
# makes it text again.
if TYPE_CHECKING:
    NameOption = str
else:
    NameOption = str | int

_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})", re.ASCII)


def expanded(path: str | Path | int) -> str:
    """The path that a user means: `~` is the home folder, `$NAME` and `${NAME}` are variables.

    Args:
        path: As given in an option, in YAML or in Python.

    Raises:
        LightsaeError: If there is no such variable or user, and no file of that very name; or if
            it is empty.

    Example:
        >>> os.environ["DISK"] = "/scratch"
        >>> expanded("$DISK/shards"), expanded("shards"), expanded(2024)
        ('/scratch/shards', 'shards', '2024')
        >>> expanded("$NO_DISK/shards")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: $NO_DISK/shards: $NO_DISK is not set
    """
    text = os.path.expanduser(os.path.expandvars(path if isinstance(path, str) else str(path)))
    if not text or "\0" in text:
        raise LightsaeError(f"{text!r} is no path: is a variable empty?")
    first, _, _ = text.partition("/")
    if first.startswith("~") and not os.path.lexists(first):
        raise LightsaeError(f"{path}: there is no user {first[1:]}")
    unset = _VARIABLE.search(text)
    if unset and not os.path.lexists(text[: unset.end()]):
        raise LightsaeError(f"{path}: {unset[0]} is not set")
    return text


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside the target; on success it is synced and takes its place.

    The temporary name is fixed, so that what a killed process left is written over, not piled up.

    Args:
        target: The file to write; its folder must exist.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('whole', 1)
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that a crash leaves as it was, or whole; its folder is made, too.

    Args:
        path: The file.
        content: Text goes in as UTF-8.

    Raises:
        LightsaeError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "note.txt"
        >>> write_whole(path, "whole")
        >>> path.read_text()
        'whole'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise LightsaeError(f"{path} cannot be written: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
