"""When one process of a run fails the others are ended, and only the failed one reports."""

import signal
from subprocess import Popen, TimeoutExpired
from time import monotonic, sleep
from types import FrameType
from typing import NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed import DistBackendError

_LOST = ("closed by peer", "reset by peer")


class EndTogether(Callback):
    """When one process fails, the others end, and one of them says why: the one that failed.

    The first ends those it started at once, unless it fails for want of a partner; then it waits
    for the partner to say why. The others let the first go before them: where all fail alike, it
    alone is heard. Under torchrun and SLURM, which start the processes themselves, it is they who
    end them.

    Args:
        grace: Seconds that the first waits for a partner that is gone.
        precedence: Seconds that the others wait for the first.

    Attributes:
        partners: After one was lost, which of those that this process started were killed; empty
            where they failed and said why, None where this process started none.
    """

    def __init__(self, grace: float = 5.0, precedence: float = 1.0) -> None:
        self.grace = grace
        self.precedence = precedence
        self.partners: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer SIGTERM at once: Lightning would first talk to processes that do not listen."""
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, _stop)

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Wait for the others, then end them."""
        lost = lost_a_partner(exception)
        if not trainer.is_global_zero and not lost:
            sleep(self.precedence)
        started: list[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        processes = list(started)
        started.clear()  # Lightning watches them, and would kill this process with them
        _end(processes, self.grace if lost else 0.0)
        if lost and processes:
            killed = [process for process in processes if process.returncode < 0]
            self.partners = ", ".join(
                f"process {process.pid} of this run got {signal.Signals(-process.returncode).name}"
                for process in killed
            )


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SIGTERMException


def _end(processes: list[Popen[bytes]], grace: float) -> None:
    end = monotonic() + grace
    for process in processes:
        try:
            process.wait(max(end - monotonic(), 0))
        except TimeoutExpired:
            process.kill()
            process.wait()


def lost_a_partner(error: BaseException) -> bool:
    """Whether communication failed because another process of the run ended.

    Example:
        >>> lost_a_partner(RuntimeError("pair.cc:561] Connection closed by peer [127.0.0.1]"))
        True
    """
    text = str(error)
    return isinstance(error, DistBackendError) or any(words in text for words in _LOST)
