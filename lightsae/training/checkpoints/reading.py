"""Reading a checkpoint: checksums first, then tensors and plain values only."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from lightsae.errors import LightsaeError

_ALWAYS_THERE = {"state_dict": dict, "global_step": int, "pytorch-lightning_version": str}


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Tensors and plain values of a checkpoint.

    Args:
        path: The file.
        map_location: Where tensors go, as in torch.load.

    Raises:
        LightsaeError: If it is missing, truncated or altered, or holds anything but tensors and
            plain values.

    Example:
        >>> from lightsae.training import read_checkpoint
        >>> read_checkpoint(Path("no.ckpt"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no.ckpt: no such checkpoint
    """
    if not path.is_file():
        raise LightsaeError(f"{path}: no such checkpoint")
    try:
        _require_intact(path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise LightsaeError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(key), kind) for key, kind in _ALWAYS_THERE.items()
    ):
        raise LightsaeError(f"{path} is not a checkpoint of a training run")
    return content


def _require_intact(path: Path) -> None:
    """Torch writes a checksum of every part and does not look at it when it reads."""
    with ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise LightsaeError(f"its part {damaged} is damaged")
