"""What a folder holds, so that nothing else is written among it."""

from pathlib import Path
from typing import Literal

from lightsae.errors import LightsaeError

Content = Literal["shards", "a run", "an autoencoder", "a steering", "a comparison"]

_FILES: dict[Content, tuple[str, ...]] = {
    "shards": ("shard-*.h5",),
    "a run": ("metrics.jsonl", "checkpoints/*.ckpt"),
    "an autoencoder": ("sae.safetensors",),
    "a steering": ("steering.json", "cells/*.safetensors"),
    "a comparison": (),  # it may lie among other things, which do not take it for theirs
}


def require_no_other(folder: Path, wanted: Content) -> None:
    """Refuse a folder that holds something else than what is about to be written.

    Args:
        folder: Existing or not.
        wanted: What is about to be written.

    Raises:
        LightsaeError: Naming what it holds.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "shard-00000.h5").touch()
        >>> require_no_other(folder, "shards")
        >>> require_no_other(folder, "a run")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: ...: holds shards, expected another folder for a run
    """
    for content, patterns in _FILES.items():
        if content != wanted and any(any(folder.glob(pattern)) for pattern in patterns):
            raise LightsaeError(f"{folder}: holds {content}, expected another folder for {wanted}")
