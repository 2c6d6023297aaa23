"""Checkpoints that a crash cannot spoil, often enough that little work is lost."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightsae.errors import LightsaeError
from lightsae.files import replacing


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
        except OSError as error:
            raise LightsaeError(f"{target} cannot be written: {error.strerror}") from error

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
        LightsaeError: If it is missing, truncated, or holds anything but tensors and plain values.

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
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LightsaeError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise LightsaeError(f"{path} is not a checkpoint of a training run")
    return content


class ResumePoint(Callback):
    """Keeps one checkpoint from which the run goes on exactly as if it had never stopped.

    It is written every few steps and at the end of each epoch, never between a step and the
    validation that follows it.

    Args:
        path: The checkpoint file.
        every_n_steps: Optimizer steps between two checkpoints.

    Raises:
        LightsaeError: If every_n_steps is smaller than 1.
    """

    def __init__(self, path: str | Path, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise LightsaeError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self._saved_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where this run starts."""
        self._saved_at = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time and nothing else belongs to this step."""
        stepped = trainer.global_step - self._saved_at >= self.every_n_steps
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if stepped and not accumulating and not _validates_after(trainer, batch_idx):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the epoch's validation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.path)
        self._saved_at = trainer.global_step


def _validates_after(trainer: Trainer, batch_idx: int) -> bool:
    if batch_idx + 1 >= trainer.num_training_batches:
        return True
    interval = trainer.val_check_batch
    return isinstance(interval, int) and (batch_idx + 1) % interval == 0
