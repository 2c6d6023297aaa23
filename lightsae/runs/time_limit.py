"""`max_time`, which counts for each command anew, not for the whole run."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


class TimeLimit(Timer):
    """Ends a command when its time is up; Lightning's own counts all commands of a run together.

    Args:
        duration: DD:HH:MM:SS, a timedelta, or its keyword arguments.

    Example:
        >>> TimeLimit({"minutes": 1}).time_remaining()
        60.0
    """

    @property
    def state_key(self) -> str:
        """That of Lightning's own, whose state older checkpoints hold."""
        return Timer.__qualname__

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the next command begins anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forget what earlier commands took."""


def timer_that_ended(trainer: Trainer) -> Timer | None:
    """The timer whose time was up before the run was done, or None."""
    loop: Any = trainer.fit_loop
    steps_taken = 0 <= trainer.max_steps <= trainer.global_step
    epochs = trainer.max_epochs
    passes = epochs is not None and 0 <= epochs <= loop.epoch_progress.current.processed
    if steps_taken or (passes and loop.epoch_loop.batch_progress.is_last_batch):
        return None
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            return callback  # type: ignore[no-any-return]
    return None
