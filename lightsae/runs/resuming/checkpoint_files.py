"""Checkpoint files: written atomically, read with checksums and weights_only."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.runs.resuming.moved_run import follow_moved_checkpoints
from lightsae.runs.resuming.serializable_check import require_readable
from lightsae.training.checkpoints.reading import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames; reads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint as a whole or not at all; nothing that could not be read back."""
        target = Path(path)
        try:
            require_readable(checkpoint)
        except LightsaeError as error:
            raise LightsaeError(f"{target} cannot be written: {error}") from error
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
        if Path(path).name == ".temp.ckpt":  # the weights that a spawned process ends with
            return super().load_checkpoint(path, map_location, weights_only=True)
        content = read_checkpoint(Path(path), map_location)
        follow_moved_checkpoints(content.get("callbacks"), Path(path).resolve().parent)
        return content
