"""What validate, test and predict need besides a trainer: a checkpoint, and test its figures."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from rich.console import Console

from lightsae.errors import LightsaeError
from lightsae.evaluation.result_table import result_table
from lightsae.evaluation.trainer_callback import EvaluationCallback
from lightsae.files import expanded
from lightsae.runs.command.announcements import say
from lightsae.runs.metrics_file import MetricsFile
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
    """Fit the probes, in this process alone, and show every figure."""
    console = Console(stderr=True, quiet=not shows_progress)
    if isinstance(module, SAEModule):
        evaluation.fit_probes(module, data, console)
    for note in evaluation.notes:
        say(note)
    if evaluation.result is not None:
        Console(soft_wrap=False).print(result_table(evaluation.result))
        say(f"{evaluation.folder}: evaluation.json, evaluation.safetensors")
