"""Warnings of Pillow and libtiff about an image, collected so that they can be told by its name."""

import ctypes
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from lightsae.error_messages import one_line
from lightsae.extras import require

_reading = threading.local()
_installing = threading.Lock()
_DIRECTIVE = re.compile(r"%[-+ #0-9.*]*[a-zA-Z]+")
# What libtiff calls: the function that complains, a format of printf and its values.
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """Collect what is warned of while this thread reads an image; other threads print as before.

    Example:
        >>> with warnings.catch_warnings(), decoder_messages() as messages:
        ...     warnings.simplefilter("always")
        ...     warnings.warn("corrupt EXIF data")
        >>> messages
        ['corrupt EXIF data']
    """
    _listen_to_libtiff()
    _listen_to_log()
    _listen_to_warnings()
    messages: list[str] = []
    _reading.messages = messages
    try:
        yield messages
    finally:
        _reading.messages = None


def warning_line(where: str, messages: list[str]) -> str:
    """One line of what was said of an image that was read all the same; empty for nothing.

    Example:
        >>> warning_line("a.tif", ["Truncated File Read", "Truncated File Read"])
        'a.tif: was read with 2 warnings, the first: Truncated File Read'
    """
    if not messages:
        return ""
    count = "a warning" if len(messages) == 1 else f"{len(messages)} warnings, the first"
    return f"{where}: was read with {count}: {one_line(messages[0])}"


def _recorded(message: str) -> bool:
    """Whether this thread reads an image, of which the message is then."""
    messages = getattr(_reading, "messages", None)
    if messages is not None:
        messages.append(message)
    return messages is not None


def _listen_to_warnings() -> None:
    """Look at every warning before it is shown, unless others look since."""
    with _installing:
        if isinstance(warnings.showwarning, _Show):
            return
        warnings.showwarning = _Show(warnings.showwarning)
        if not sys.warnoptions:
            # By default each is shown once, so that later images would go without.
            warnings.filterwarnings("always", module=r"PIL\.")


class _Show:
    """Shows the warnings that are of no image."""

    def __init__(self, show: Any) -> None:
        self._show = show

    def __call__(self, message: Warning | str, *where: Any, **options: Any) -> None:
        if not _recorded(str(message)):
            self._show(message, *where, **options)


class _Log(logging.Handler):
    """Takes Pillow's log entries of an image; without it Python would print them."""

    def emit(self, record: logging.LogRecord) -> None:
        recorded = _recorded(record.getMessage())
        if not recorded and logging.lastResort and not logging.getLogger().handlers:
            logging.lastResort.handle(record)


@cache
def _listen_to_log() -> None:
    """Take the warnings and errors that Pillow logs."""
    logging.getLogger("PIL").addHandler(_Log(logging.WARNING))


@cache
def _listen_to_libtiff() -> list[Any]:
    """Take the place of libtiff's function that prints; where it cannot be found, it prints on.

    Returns:
        What must stay in memory.
    """
    kept: list[Any] = []

    def handle(module: bytes | None, form: bytes | None, values: int | None) -> None:
        text = _DIRECTIVE.sub("...", (form or b"").decode(errors="replace"))
        if not _recorded(f"{(module or b'libtiff').decode(errors='replace')}: {text}") and before:
            before(module, form, values)

    before: Any = None
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(require("PIL.Image", extra="vision").core.__file__)
        library.TIFFSetErrorHandler.restype = _Handler
        library.TIFFSetErrorHandler.argtypes = [_Handler]
        kept += [library, _Handler(handle)]
        before = library.TIFFSetErrorHandler(kept[-1])
    return kept
