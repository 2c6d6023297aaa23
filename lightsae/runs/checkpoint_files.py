"""Checkpoint files: written atomically, read with checksums and weights_only."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightsae.errors import LightsaeError
from lightsae.files import replacing

_ALWAYS_THERE = {"state_dict": dict, "global_step": int, "pytorch-lightning_version": str}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames; reads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint as a whole or not at all."""
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch raises the latter when a write falls short
            reason = getattr(error, "strerror", None) or f"no space left? {error}"
            raise LightsaeError(f"{target} cannot be written: {reason}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint without running anything it contains."""
        return read_checkpoint(Path(path), map_location)


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
