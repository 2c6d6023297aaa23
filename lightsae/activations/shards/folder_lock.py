"""Lock on a shard folder, durable renames, and the system's reason of a failed write."""

import fcntl
import os
import re
from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.files import sync_folder


def system_message(error: Exception) -> str:
    """What the system said went wrong, without HDF5's inner details.

    Example:
        >>> system_message(OSError("write failed (errno = 28, total = 4)"))
        'No space left on device'
    """
    code = system_code(error)
    return str(error).splitlines()[0] if code is None else os.strerror(code)


def system_code(error: Exception) -> int | None:
    """The errno of an exception, or that in a message of HDF5.

    Example:
        >>> system_code(OSError("write failed (errno = 28, total = 4)"))
        28
    """
    number: int | None = getattr(error, "errno", None)
    found = re.search(r"errno = (\d+)", str(error))
    return number or (int(found[1]) if found else None)


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before there is anything to write.

    Args:
        folder: Existing or not.

    Raises:
        LightsaeError: If it is or lies below a file, or may not be written.

    Example:
        >>> check_writable(Path("/dev/null/shards"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: /dev/null/shards: /dev/null is a file, expected a folder
    """
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise LightsaeError(f"{folder}: {existing} is a file, expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise LightsaeError(f"{folder}: no permission to write in {existing}")


def lock_folder(folder: Path) -> int:
    """Lock a folder against a second writer; the lock ends with the process.

    Args:
        folder: An existing folder.

    Returns:
        An open descriptor; closing it ends the lock.

    Raises:
        LightsaeError: If another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise LightsaeError(f"{folder}: is being written by another process") from None
    return handle


def put_in_place(temporary: Path, target: Path) -> None:
    """Force a finished file to the disk, then give it its name.

    Args:
        temporary: The file, in the target's folder.
        target: Its name from now on.
    """
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(target)
    sync_folder(target.parent)
