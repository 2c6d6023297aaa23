"""What validate, test and predict need besides a trainer: a checkpoint, and test its figures."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.evaluation.description import described_regularizer
from lightsae.evaluation.result import EvaluationResult
from lightsae.evaluation.result_table import result_table, shown
from lightsae.evaluation.trainer_callback import EvaluationCallback
from lightsae.files import expanded
from lightsae.runs.command.announcements import say
from lightsae.runs.metrics_file import MetricsFile
from lightsae.runs.run_folder import RunFolder, regularizer_of
from lightsae.sae import Regularizer
from lightsae.training.checkpoints.reading import read_checkpoint
from lightsae.training.module import SAEModule


def given_checkpoint(settings: Any) -> Path | None:
    """The checkpoint that a command names, or None.

    Raises:
        LightsaeError: If it is one of Lightning's words instead of a file.

    Example:
        >>> given_checkpoint({"ckpt_path": "a.ckpt"}), given_checkpoint({})
        (PosixPath('a.ckpt'), None)
    """
    given = settings.get("ckpt_path")
    if given in ("best", "last", "hpc"):
        raise LightsaeError(
            f"--ckpt_path must be a file, got {given!r}; without it the run's own is used"
        )
    return None if given is None else Path(expanded(given))


def require_trained_regularizer(run: RunFolder, regularizer: Regularizer | None) -> None:
    """Refuse another regularizer than a run was trained with.

    Args:
        run: Its folder, with `config.yaml`.
        regularizer: That of the configuration which the command was given.

    Raises:
        LightsaeError: If the run was trained with another: loss, penalty and the name of the
            setting would not be the run's.
    """
    given, trained = described_regularizer(regularizer), regularizer_of(run.settings())
    if not _agree(given, trained):
        raise LightsaeError(
            f"{run.path} was trained with {_told(trained)}, the configuration given has "
            f"{_told(given)}; --config {run.config} has the run's settings"
        )


def _agree(given: dict[str, Any] | None, trained: dict[str, Any] | None) -> bool:
    if given is None or trained is None:
        return given is trained
    weights = (given["weight"], trained["weight"])
    same = None in weights or math.isclose(*weights, rel_tol=1e-6)
    return same and bool(given["name"] == trained["name"])


def _told(regularizer: dict[str, Any] | None) -> str:
    if regularizer is None:
        return "no regularizer"
    weight = regularizer["weight"]
    return f"{regularizer['name']}" + ("" if weight is None else f" of weight {weight:g}")


def log_at_step_of(
    checkpoint: Path, trainer: Trainer, evaluation: EvaluationCallback | None
) -> None:
    """Let metrics and the result say of which step they are."""
    step = read_checkpoint(checkpoint)["global_step"]
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            logger.at_step = step
    if evaluation is not None:
        evaluation.step = step


def finish_evaluation(
    evaluation: EvaluationCallback, module: LightningModule, data: Any, *, shows_progress: bool
) -> None:
    """Fit the probes, in this process alone, and say what is left out and what was written."""
    console = Console(stderr=True, quiet=not shows_progress)
    if isinstance(module, SAEModule):
        evaluation.fit_probes(module, data, console)
    for note in evaluation.notes:
        say(note)
    if evaluation.result is not None:
        say(f"{evaluation.folder}: evaluation.json, evaluation.safetensors")


@rank_zero_only
def show_metrics(metrics: Mapping[str, Tensor], result: EvaluationResult | None = None) -> None:
    """Print a result, or without one the metrics that a trainer logged.

    Args:
        metrics: By name, one value each.
        result: That of an evaluation.

    Example:
        >>> import torch
        >>> show_metrics({"val/r2": torch.tensor(0.75), "val/dead": torch.tensor(3.0)})
        val/r2     .7500
        val/dead  3.0000
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in metrics.items():
        table.add_row(Text(name), Text(shown(float(value))))
    Console(soft_wrap=False).print(table if result is None else result_table(result))
