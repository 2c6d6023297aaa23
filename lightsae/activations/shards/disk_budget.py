"""The disk space that an extraction needs, against `max_bytes` and the free space."""

import os
import shutil
from pathlib import Path

from rich.filesize import decimal

from lightsae.activations.shards.dtypes import storage
from lightsae.activations.shards.shard_file import index_names
from lightsae.errors import LightsaeError

# What HDF5 takes beside the numbers, as measured.
_FILE_BYTES, _CHUNK_BYTES = 18_000, 200


def row_bytes(d_in: int, dtype: str, has_labels: bool) -> int:
    """Bytes of a stored row and its index.

    Example:
        >>> row_bytes(1024, "float16", has_labels=True)
        2072
    """
    return d_in * storage(dtype).disk_dtype.itemsize + 8 * len(index_names(has_labels))


def shard_bytes(rows: int, chunk_rows: int, d_in: int, dtype: str, has_labels: bool) -> int:
    """Bytes of a shard's file, to a few kB; its last chunk takes as much as a whole one.

    Example:
        >>> shard_bytes(1000, 256, 1024, "float16", has_labels=True)
        2156912
    """
    if rows == 0:
        return 0
    chunks = -(-rows // chunk_rows)
    each = chunk_rows * row_bytes(d_in, dtype, has_labels) + _CHUNK_BYTES
    return _FILE_BYTES + 16 * d_in + chunks * each


def check_room(
    folder: Path, whole: int, written: int, max_bytes: int | None, processes: int = 1
) -> None:
    """Refuse to write what would exceed the budget or the free space.

    Args:
        folder: Where it is written, existing or not.
        whole: Bytes of the finished folder, estimated.
        written: Bytes of it that are there already.
        max_bytes: The budget, or None.
        processes: How many write as much each to the same disk.

    Raises:
        LightsaeError: Naming the estimate and what is allowed or free.

    Example:
        >>> check_room(Path("shards"), 5_000_000, 0, max_bytes=2_000_000)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: max_bytes is 2000000 (2.0 MB): shards would take about \
5000000 (5.0 MB)
    """
    if max_bytes is not None and whole > max_bytes:
        raise LightsaeError(
            f"max_bytes is {max_bytes} ({decimal(max_bytes)}): {folder} would take about "
            f"{whole} ({decimal(whole)})"
        )
    existing = folder
    while not os.path.exists(existing):  # which says no where Path raises, as for too long a name
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    needed = (whole - written) * processes
    if needed > free:
        raise LightsaeError(
            f"{folder}: would take about {decimal(needed)} more, there are "
            f"{decimal(free)} free: free some space or use another folder"
        )


def check_spent(folder: Path, written: int, max_bytes: int | None) -> None:
    """Stop at the budget.

    Args:
        folder: Where it is written.
        written: Bytes of it that are there, or will be with what comes next.
        max_bytes: The budget, or None.

    Raises:
        LightsaeError: If they are more; whole shards stay.

    Example:
        >>> check_spent(Path("shards"), 2_000_001, max_bytes=2_000_000)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: shards: stopped at max_bytes = 2000000 (2.0 MB): its whole \
shards are kept, the same command with a larger max_bytes goes on
    """
    if max_bytes is not None and written > max_bytes:
        raise LightsaeError(
            f"{folder}: stopped at max_bytes = {max_bytes} ({decimal(max_bytes)}): its whole "
            "shards are kept, the same command with a larger max_bytes goes on"
        )
