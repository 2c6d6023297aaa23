"""Checkpoints that a crash cannot spoil, often enough that little work is lost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise LightsaeError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(key), kind) for key, kind in _ALWAYS_THERE.items()
    ):
        raise LightsaeError(f"{path} is not a checkpoint of a training run")
    return content


def require_same_model(
    checkpoint: Mapping[str, Any], state: Mapping[str, Tensor], selection: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint whose tensors or selection rule are not those of a model.

    Args:
        checkpoint: What `read_checkpoint` returned.
        state: The model's state dict.
        selection: The model's selection rule by name and settings.

    Raises:
        LightsaeError: Naming the first tensor, or the rule, that differs.

    Example:
        >>> require_same_model({"state_dict": {}}, {"sae.b_dec": torch.zeros(4)}, {})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: is a checkpoint of another model: it has no sae.b_dec
    """
    found = checkpoint["state_dict"]
    for name, tensor in state.items():
        if not isinstance(found.get(name), Tensor):
            raise LightsaeError(f"is a checkpoint of another model: it has no {name}")
        if found[name].shape != tensor.shape:
            raise LightsaeError(
                f"is a checkpoint of another model: its {name} is {list(found[name].shape)}, "
                f"expected {list(tensor.shape)}"
            )
    if extra := sorted(found.keys() - state.keys()):
        raise LightsaeError(f"is a checkpoint of another model: {extra[0]} has no place here")
    trained_with = checkpoint.get("selection", selection)
    if trained_with != selection:
        raise LightsaeError(
            f"is a checkpoint of another model: it was trained with selection {trained_with}, "
            f"this one has {dict(selection)}"
        )


def require_resumable(checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that holds weights only.

    Raises:
        LightsaeError: Naming what is missing.

    Example:
        >>> require_resumable({"optimizer_states": [], "lr_schedulers": []})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: is nothing to go on from: it has no loops
    """
    for key in ("optimizer_states", "lr_schedulers", "loops"):
        if key not in checkpoint:
            raise LightsaeError(f"is nothing to go on from: it has no {key}")


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
            # Lightning would log this step only after the checkpoint that says it is done.
            trainer._logger_connector.update_train_step_metrics()
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation; an epoch that max_steps cut short stays open to go on with."""
        loop: Any = trainer.fit_loop
        cut_short = not loop.epoch_loop.batch_progress.is_last_batch
        progress = loop.epoch_progress.total, loop.epoch_progress.current
        for count in progress:
            count.processed -= cut_short
        self._save(trainer)
        for count in progress:
            count.processed += cut_short

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.path)
        self._saved_at = trainer.global_step


def _validates_after(trainer: Trainer, batch_idx: int) -> bool:
    if batch_idx + 1 >= trainer.num_training_batches:
        return True
    interval = trainer.val_check_batch
    if trainer.check_val_every_n_epoch is None:
        batch_idx = trainer.fit_loop.epoch_loop.total_batch_idx
    return isinstance(interval, int) and (batch_idx + 1) % interval == 0
