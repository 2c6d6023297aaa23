"""The progress bar of a run: batches, time left, R2, loss, dead latents and rows per second.

Under a rule that learns thresholds L0 takes the place of the loss: both do not fit.
"""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import BatchesProcessedColumn
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text
from torch import Tensor


class RunProgressBar(RichProgressBar):
    """A bar whose figures stay whole in a terminal of 80 columns.

    Figures are read at the steps that log them: between two of those nothing waits for a GPU.

    Args:
        console_kwargs: Of the `rich.console.Console` that is written to.

    Example:
        >>> RunProgressBar().is_enabled
        True
    """

    def __init__(self, console_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__(console_kwargs=console_kwargs)
        self._figures = _Figures()

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """What is shown, from left to right."""
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            BatchesProcessedColumn(style=self.theme.batch_progress),
            TimeRemainingColumn(compact=True),
            self._figures,
        ]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Nothing for Lightning's own column, which clips names."""
        return {}

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Renew the figures where they were logged."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.is_enabled and every and trainer.global_step % every == 0:
            self._figures.text = figures(trainer.callback_metrics)
        super().on_train_batch_end(trainer, *args)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Renew the figures of the validation."""
        if self.is_enabled and trainer.state.fn == "fit":
            self._figures.text = figures(trainer.callback_metrics)
        super().on_validation_end(trainer, pl_module)

    def _init_progress(self, trainer: Trainer) -> None:
        super()._init_progress(trainer)
        self._figures.bar = self

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        known = last is not None and last > 0
        return f"{f'Epoch {current_epoch + 1}' + (f'/{last}' if known else ''):10}"


class _Figures(ProgressColumn):
    """Figures beside the bar of training, nothing beside others."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.text = ""
        self.bar: RunProgressBar | None = None

    def render(self, task: Task) -> Text:
        """The figures of a task."""
        trains = self.bar is not None and self.bar.train_progress_bar_id == task.id
        return Text(self.text if trains else "")


def figures(metrics: Mapping[str, Tensor]) -> str:
    """What was logged last, in a few words; what was not logged is left out.

    Args:
        metrics: Scalars by name.

    Example:
        >>> import torch
        >>> logged = {"train/r2": 0.912, "val/r2": 0.9, "train/loss": 0.088,
        ...     "train/dead_fraction": 0.031, "train/tokens_per_second": 32810.0}
        >>> figures({name: torch.tensor(value) for name, value in logged.items()})
        'R2 .912 val .900 loss .088 dead 3% 33k rows/s'
        >>> learned = {"train/l0": 31.96, "train/threshold": 0.4, "train/loss": 0.088}
        >>> figures({name: torch.tensor(value) for name, value in learned.items()})
        'L0 32'
    """
    learns = "train/threshold" in metrics
    shown = (
        ("train/r2", lambda value: f"R2 {_short(value, 3)}"),
        ("val/r2", lambda value: f"val {_short(value, 3)}"),
        ("train/l0", lambda value: f"L0 {value:.3g}")
        if learns
        else ("train/loss", lambda value: f"loss {_short(value, 3)}"),
        ("train/dead_fraction", lambda value: f"dead {value:.0%}"),
        ("train/tokens_per_second", lambda value: f"{_thousands(value)} rows/s"),
    )
    return " ".join(told(float(metrics[name])) for name, told in shown if name in metrics)


def _short(value: float, digits: int) -> str:
    """A number without the zero before its point.

    Example:
        >>> _short(0.5, 3), _short(-0.25, 3), _short(12.3456, 3)
        ('.500', '-.250', '12.3')
    """
    if abs(value) >= 1:
        return f"{value:.{digits}g}"
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def _thousands(value: float) -> str:
    """A rate of three digits at most.

    Example:
        >>> _thousands(950.0), _thousands(32810.0), _thousands(2.6e6)
        ('950', '33k', '2.6M')
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"
