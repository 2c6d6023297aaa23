"""SIGTERM as an exception; interrupts that a destructor lost are sent again."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_AGAIN_AFTER = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM, answered as Ctrl-C is."""


@contextmanager
def answering_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM comes; elsewhere change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def repeating_lost_interrupts() -> Iterator[None]:
    """Send a signal again whose exception Python dropped.

    An exception out of a destructor or a callback of a weak reference is printed and forgotten;
    a Ctrl-C that came while one ran would be lost with it.
    """
    before = sys.unraisablehook

    def again(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            before(lost)
            return
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        threading.Timer(_AGAIN_AFTER, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def interrupt_in(error: BaseException) -> KeyboardInterrupt | None:
    """The signal that an error comes from: code that is imported may turn it into any other.

    Example:
        >>> try:
        ...     try:
        ...         raise KeyboardInterrupt
        ...     except KeyboardInterrupt:
        ...         raise ImportError("half of it")
        ... except ImportError as error:
        ...     interrupt_in(error)
        KeyboardInterrupt()
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated
