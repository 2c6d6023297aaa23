"""Commands of `lightsae` in processes that can be killed."""

import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from lightsae.cli import main as lightsae_main


class Child(NamedTuple):
    """A process and where it says what it says."""

    pid: int
    stderr: Path

    def wait(self) -> tuple[int, str]:
        """Exit code, or minus the signal, and the last line of what it said."""
        status = os.waitpid(self.pid, 0)[1]
        lines = self.stderr.read_text(errors="replace").strip().splitlines() or [""]
        self.stderr.unlink()
        return os.waitstatus_to_exitcode(status), lines[-1]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


def run(words: list[str], environment: dict[str, str] | None = None, clock: float = 0.0) -> Child:
    """Give a command in a process of its own, its clock some seconds wrong."""
    handle, name = tempfile.mkstemp()
    pid = os.fork()
    if pid:
        os.close(handle)
        return Child(pid, Path(name))
    os.dup2(handle, 2)
    os.environ.update(environment or {})
    real = time.time
    time.time = lambda: real() + clock
    try:
        os._exit(lightsae_main(words))
    except SystemExit as error:
        os._exit(int(error.code or 0))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(70)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
