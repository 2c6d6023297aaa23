"""What a run says of itself: where it starts, where it stopped, how it ended."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from lightsae.runs.command import exit_messages
from lightsae.runs.command.model_summary import model_summary
from lightsae.runs.resuming.resume_point import ResumePoint, stopped_early
from lightsae.runs.time_limit import TimeLimit, timer_that_ended
from lightsae.training.module import SAEModule


@rank_zero_only
def say(text: str) -> None:
    """Print a line for the user, on the first rank."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


class FitAnnouncements:
    """The lines that `fit` prints about its run.

    Args:
        resume_point: What keeps the run's checkpoint, or None.

    Attributes:
        given: The checkpoint that the user named, or None.
        resumed_from: Step of the run's own checkpoint that it goes on from, or None.
    """

    def __init__(self, resume_point: ResumePoint | None) -> None:
        self._resume_point = resume_point
        self._trains = False
        self.given: Path | None = None
        self.resumed_from: int | None = None

    def start(self, trainer: Trainer, module: LightningModule) -> str:
        """Training begins, or goes on."""
        self._trains = True
        sizes = f" ({model_summary(module.sae)})" if isinstance(module, SAEModule) else ""
        if trainer.ckpt_path is None:
            why = "no checkpoint yet" if self._resume_point else "keeps no checkpoint"
            return f"{why}, starting from the beginning{sizes}"
        return f"going on after step {trainer.global_step}{sizes}"

    def stopped(self, trainer: Trainer) -> str:
        """Where the run stopped, and where the same command goes on."""
        kept = None if self._resume_point is None else self._resume_point.step
        return exit_messages.stopped(
            trainer.global_step,
            kept=self.resumed_from if kept is None else kept,
            resumes=self.given is None,
        )

    def closing(self, trainer: Trainer) -> str:
        """The last line of a run that no signal ended."""
        step, timer = trainer.global_step, timer_that_ended(trainer)
        if isinstance(timer, TimeLimit):
            return f"time is up: {self.stopped(trainer)}"
        if timer is not None:
            return exit_messages.out_of_time(step, trained=self._trains)
        early = stopped_early(trainer)
        return exit_messages.finished(step, trained=self._trains, early=early)
