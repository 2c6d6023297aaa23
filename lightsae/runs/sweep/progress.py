"""A progress bar of a stack: how many train, at which step, and how fast."""

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.training.run_length import steps_of_run
from lightsae.training.stacked import StackedModule

_SECONDS = 0.2


class SweepProgress(Callback):
    """Shows a group while it trains.

    Args:
        title: What trains, such as "grid, group 1 of 2".
        console: Where to.
    """

    def __init__(self, title: str, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("steps · {task.fields[members]} · {task.fields[speed]}"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(title, total=None, members="", speed="", start=False)
        self._rows = 0
        self._shown = self._rows_since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin where training begins."""
        self._bar.start()
        self._bar.start_task(self._task)
        self._bar.update(self._task, total=steps_of_run(trainer), completed=trainer.global_step)
        self._rows, self._rows_since = 0, perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Go on, a few times a second."""
        self._rows += len(as_activation_batch(batch).activations)
        now = perf_counter()
        if now - self._shown < _SECONDS:
            return
        assert isinstance(pl_module, StackedModule)
        training, failed = len(pl_module.active), len(pl_module.members) - len(pl_module.active)
        members = f"{training} autoencoders" + (f", {failed} failed" if failed else "")
        speed = f"{self._rows / max(now - self._rows_since, 1e-9):,.0f} rows/s"
        self._bar.update(self._task, completed=trainer.global_step, members=members, speed=speed)
        self._shown = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave nothing behind."""
        self._bar.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind."""
        self._bar.stop()
