"""Opening HDF5 files, and why one that may be whole cannot be read here."""

import errno
import os
from pathlib import Path
from typing import Any

import h5py

from lightsae.activations.shards.folder_lock import system_code

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class ObstacleError(OSError):
    """A file that may be whole cannot be read here; the message says why."""


def open_hdf5(path: Path, *, never_changes: bool = False, **options: Any) -> h5py.File:
    """Open a file to read it; without a lock where the file system has none.

    Args:
        path: The file.
        never_changes: Whoever has locked it does not matter: what is read is checked.
        options: Of `h5py.File`.

    Raises:
        ObstacleError: If it may be whole but cannot be read here.
        OSError: If it is no HDF5 file, or damaged.
    """
    try:
        try:
            return h5py.File(path, "r", **options)
        except OSError as error:
            locked = "unable to lock" in str(error)
            if not (locked and (never_changes or system_code(error) in _NO_LOCKS)):
                raise
        return h5py.File(path, "r", locking=False, **options)
    except (OSError, KeyError) as error:
        found = obstacle_in(error)
        if found is None:
            raise
        raise ObstacleError(found) from error


def obstacle_in(error: Exception) -> str | None:
    """What keeps a file from being read that may be whole; None where the file itself does.

    Example:
        >>> obstacle_in(OSError("unable to open file (errno = 13, flags = 0)"))
        'Permission denied'
        >>> obstacle_in(OSError("truncated file: eof = 96")) is None
        True
    """
    if isinstance(error, ObstacleError):
        return str(error)
    text = str(error)
    if "unable to lock" in text or "locking flag" in text:
        return (
            "it is locked by another program, or its file system has no locks: "
            "HDF5_USE_FILE_LOCKING=FALSE reads it all the same"
        )
    if "version number" in text:
        return (
            f"its format is not one that HDF5 {h5py.version.hdf5_version} here knows: "
            "a newer one wrote it, or it is damaged"
        )
    code = system_code(error)
    return None if code is None else os.strerror(code)
