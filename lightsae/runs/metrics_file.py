"""Metrics of a run as one JSON object per line."""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightsae.errors import LightsaeError
from lightsae.files import replacing


class MetricsFile(Logger):
    """Appends a line per logged step: {"step": 99, "epoch": 0, "train/loss": 0.41, ...}.

    A resumed run takes back the lines of steps that it will do again, so the file reads as if the
    run had never stopped.

    Args:
        path: The file; its folder is made when the first line is written.
        at_step: Step of every line, for an evaluation of a finished run.

    Example:
        >>> import tempfile
        >>> metrics = MetricsFile(Path(tempfile.mkdtemp()) / "metrics.jsonl")
        >>> metrics.log_metrics({"train/loss": 0.5}, step=9)
        >>> metrics.log_metrics({"train/loss": 0.4}, step=19)
        >>> metrics.rewind(step=10)
        >>> metrics.rows()
        [{'step': 9, 'train/loss': 0.5}]
    """

    def __init__(self, path: str | Path, at_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.at_step = at_step
        self._last = ""

    @property
    def name(self) -> str:
        """None: what Lightning puts beside the log goes into its folder, not one below."""
        return ""

    @property
    def version(self) -> str:
        """One file per run: there are no versions."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.path.parent)

    log_dir = save_dir

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Hyper-parameters stand in the run's config, not here."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one line; NaN and inf become null. The same line twice is one."""
        row: dict[str, Any] = {"step": step if self.at_step is None else self.at_step}
        row |= {
            name: float(value) if math.isfinite(value) else None for name, value in metrics.items()
        }
        if self.at_step is not None:
            row.pop("epoch", None)  # an evaluation's own, always 0
        elif row.get("epoch") is not None:
            row["epoch"] = int(row["epoch"])
        line = json.dumps(row) + "\n"
        if line == self._last:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(line)
        except OSError as error:
            raise LightsaeError(f"{self.path} cannot be written: {error.strerror}") from error
        self._last = line

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines of the file.

        Raises:
            LightsaeError: If one of them is not a JSON object with a step.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().splitlines(keepends=True)
        rows = []
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                rows.append(self._row(line, number))
        return rows

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LightsaeError(f"{self.path}: line {number} is not JSON") from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise LightsaeError(f"{self.path}: line {number} is not an object with a step")
        return row

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the lines of steps from this one on, and a last line that a crash cut short."""
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if row["step"] < step]
        try:
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        except OSError as error:
            raise LightsaeError(f"{self.path} cannot be written: {error.strerror}") from error
        self._last = ""


class RewindMetrics(Callback):
    """Brings every `MetricsFile` of a trainer back to the step at which training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rewind to the checkpoint's step."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.rewind(trainer.global_step)
