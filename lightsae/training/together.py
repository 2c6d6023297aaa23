"""Ending the processes of a run together."""

from subprocess import Popen, TimeoutExpired
from time import monotonic

from lightning.pytorch import Callback, LightningModule, Trainer


class EndTogether(Callback):
    """When the first process fails, ends those it started: none waits for a partner that is gone.

    A process that fails itself gets the time to say why. Under torchrun and SLURM, which start the
    processes themselves, it is they who end them.

    Args:
        grace: Seconds that the others are given.
    """

    def __init__(self, grace: float = 5.0) -> None:
        self.grace = grace

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Wait for the others, then end them."""
        started: list[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        end = monotonic() + self.grace
        for process in started:
            try:
                process.wait(max(end - monotonic(), 0))
            except TimeoutExpired:
                process.kill()


def lost_a_partner(error: Exception) -> bool:
    """Whether communication failed because another process of the run ended.

    Example:
        >>> lost_a_partner(RuntimeError("pair.cc:561] Connection closed by peer [127.0.0.1]"))
        True
    """
    return "closed by peer" in str(error) or "reset by peer" in str(error)
