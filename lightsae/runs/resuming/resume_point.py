"""The checkpoint from which a run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from lightsae.errors import LightsaeError
from lightsae.runs.resuming.serializable_check import require_readable
from lightsae.training.checkpoints.saved_settings import plain


class ResumePoint(Checkpoint):
    """Keeps one checkpoint from which the run goes on exactly as if it had never stopped.

    It is written every few steps, at the end of each epoch, and on SIGTERM where there is one
    process; never between a step and the validation that follows it. Lightning calls it after all
    other callbacks, so it holds what they decided. A run that early stopping ended stays ended.

    Args:
        path: The checkpoint file.
        every_n_steps: Optimizer steps between two checkpoints.

    Attributes:
        step: Step of the checkpoint that this run last wrote, or None.

    Raises:
        LightsaeError: If every_n_steps is smaller than 1.
    """

    def __init__(self, path: str | Path, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise LightsaeError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self.step: int | None = None
        self._counted_from = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a run rest that was stopped early."""
        trainer.should_stop |= stopped_early(trainer) is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where this run starts, if what is kept of it can be read back."""
        self._counted_from = trainer.global_step
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            require_readable(_states(trainer, pl_module))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time and nothing else belongs to this step."""
        due = trainer.global_step - self._counted_from >= self.every_n_steps
        # Of several processes, each learns of the signal at a step of its own.
        due |= trainer.received_sigterm and trainer.world_size == 1
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if due and not accumulating and not _validates_after(trainer, batch_idx):
            # Lightning would log this step only after the checkpoint that says it is done.
            trainer._logger_connector.update_train_step_metrics()
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation; an epoch that max_steps cut short stays open to go on with."""
        with _open_epoch(trainer):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        before = self._written()
        try:
            trainer.save_checkpoint(self.path)
        except BaseException:
            # A signal may come when the file is in its place already.
            if self._written() != before:
                self.step = trainer.global_step
            raise
        self.step = self._counted_from = trainer.global_step

    def _written(self) -> tuple[int, int] | None:
        """What tells one file at the path from the next; None where there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def _states(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """What a checkpoint holds of classes that may be the user's."""
    data = getattr(trainer, "datamodule", None)
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    return {
        "callbacks": {callback.state_key: callback.state_dict() for callback in callbacks},
        "hyper_parameters": plain(module.hparams),
        type(data).__qualname__: None if data is None else data.state_dict(),
    }


def stopped_early(trainer: Trainer) -> str | None:
    """Why early stopping ended the run, or None where it did not."""
    for callback in trainer.early_stopping_callbacks:
        assert isinstance(callback, EarlyStopping)
        if callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            reason = callback.stopping_reason_message or callback.stopping_reason.name
            return reason.removesuffix(" Signaling Trainer to stop.").rstrip(".")
    return None


@contextmanager
def _open_epoch(trainer: Trainer) -> Iterator[None]:
    """Within it, an epoch that was cut short does not count as done."""
    loop: Any = trainer.fit_loop
    cut_short = not loop.epoch_loop.batch_progress.is_last_batch
    progress = loop.epoch_progress.total, loop.epoch_progress.current
    for count in progress:
        count.processed -= cut_short
    try:
        yield
    finally:
        for count in progress:
            count.processed += cut_short


def _validates_after(trainer: Trainer, batch_idx: int) -> bool:
    if batch_idx + 1 >= trainer.num_training_batches:
        return True
    interval = trainer.val_check_batch
    if trainer.check_val_every_n_epoch is None:
        batch_idx = trainer.fit_loop.epoch_loop.total_batch_idx
    return isinstance(interval, int) and (batch_idx + 1) % interval == 0
