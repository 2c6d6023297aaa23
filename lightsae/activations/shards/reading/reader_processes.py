"""Processes that read chunks into memory that they share with this one.

Threads that read would wait for each other and for training: each needs Python's interpreter
before and after every chunk.
"""

import fcntl
import marshal
import mmap
import os
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from lightsae.activations.shards import checked_read
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.row_source import Piece

_WARNING = "a process that reads shards ended: this one reads its part, more slowly"
_ENDS_WITHIN = 5.0
_NICE = 5
# The targets of a group's rows are to fit, or whoever asks waits for the jobs before.
_PIPE_BYTES = 1 << 20


class Located(NamedTuple):
    """Where the rows of a chunk lie.

    Attributes:
        path: The file.
        offset: Their first byte in it.
        size: Number of bytes.
        checksum: xxh3 that they must have; None leaves it unchecked.
        scanned: Whether such bytes are known to be finite.
    """

    path: str
    offset: int
    size: int
    checksum: int | None
    scanned: bool


class _Pool(NamedTuple):
    """Shared memory: its number and descriptor."""

    number: int
    file: int
    size: int


class ReaderProcesses:
    """A few processes that read chunks, each its part of what is asked for, in the order asked.

    They end when this is closed or garbage, and when this process ends, in whatever way.

    Args:
        number: How many processes.

    Example:
        >>> readers = ReaderProcesses(1)
        >>> pool = readers.allocate(4)
        >>> wait = readers.begin([Piece(0, 0)], [Located("/dev/zero", 0, 4, None, True)], pool, 2,
        ...     "float16")
        >>> wait(), pool.tolist()
        ([], [0, 0, 0, 0])
        >>> readers.close()
    """

    def __init__(self, number: int) -> None:
        self._numbers = count()
        self._pools: dict[int, _Pool] = {}
        self._readers = [_Reader() for _ in range(number)]
        self._end = weakref.finalize(self, _end_all, self._readers, os.getpid())

    @staticmethod
    def possible() -> bool:
        """Whether this system has what it takes."""
        return hasattr(os, "memfd_create") and bool(sys.executable)

    def close(self) -> None:
        """End the processes; memory that was lent stays."""
        self._end()

    def allocate(self, size: int) -> Array:
        """Memory that the processes can write to, uint8 `[size]`."""
        file = os.memfd_create("lightsae-rows", os.MFD_CLOEXEC)
        os.ftruncate(file, size)
        memory = np.frombuffer(mmap.mmap(file, size), np.uint8)
        self._pools[memory.ctypes.data] = _Pool(next(self._numbers), file, size)
        forget = weakref.finalize(memory, _forget, self._pools, memory.ctypes.data, file)
        forget.atexit = False
        return memory

    def lent(self, memory: Array) -> bool:
        """Whether `allocate` gave memory, and processes are there to write to it."""
        return memory.ctypes.data in self._pools and self._end.alive

    def begin(
        self,
        pieces: Sequence[Piece],
        located: Sequence[Located],
        memory: Array,
        row_bytes: int,
        dtype: str,
    ) -> Callable[[], list[Piece]]:
        """Let the processes read pieces.

        Args:
            pieces: Which chunks, and where their rows belong.
            located: Where each lies.
            memory: What `allocate` gave, from its start on.
            row_bytes: Bytes of a row.
            dtype: Stored dtype.

        Returns:
            Waits until all is read, and returns the pieces that a process could not read or that
            are not what was written. Nothing is written to `memory` afterwards.
        """
        pools = [tuple(known) for known in list(self._pools.values())]
        number = self._pools[memory.ctypes.data].number
        asked = []
        for reader, part in zip(self._readers, _parts(located, len(self._readers)), strict=True):
            job = (number, row_bytes, dtype, *_described(pieces[part], located[part]))
            asked.append((reader, reader.ask((pools, job)), pieces[part]))

        def wait() -> list[Piece]:
            return [
                piece for reader, ticket, mine in asked for piece in reader.failed(ticket, mine)
            ]

        return wait


def _parts(located: Sequence[Located], number: int) -> list[slice]:
    """Cut pieces into so many parts of about as many bytes."""
    ends = np.cumsum([0, *(each.size for each in located)])
    edges = np.searchsorted(ends, np.linspace(0, ends[-1], number + 1)).tolist()
    return [slice(*pair) for pair in pairwise(edges)]


def _described(pieces: Sequence[Piece], located: Sequence[Located]) -> tuple[list[Any], bytes]:
    """Pieces in plain words and numbers, and the targets of their rows one after the other."""
    plain = [piece.target if isinstance(piece.target, int) else -1 for piece in pieces]
    targets = [piece.target for piece in pieces if not isinstance(piece.target, int)]
    return (
        [(*where, start) for where, start in zip(located, plain, strict=True)],
        b"".join(np.asarray(target, np.int32).tobytes() for target in targets),
    )


class _Reader:
    """A process, and what it was asked for."""

    def __init__(self) -> None:
        """Start it; signals from the terminal do not reach it."""
        self.process = subprocess.Popen(
            [sys.executable, "-P", checked_read.__file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._jobs, self._results = self.process.stdin, self.process.stdout
        with suppress(OSError):
            fcntl.fcntl(self._jobs, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # Whoever waits for its rows goes first.
        os.setpriority(os.PRIO_PROCESS, self.process.pid, _NICE)
        self._lock = Lock()
        self._asked = self._answered = 0
        self._answers: dict[int, list[int]] = {}

    def ask(self, job: tuple[Any, ...]) -> int:
        """Send a job; return the number to ask for its result with."""
        message = marshal.dumps(job)
        with self._lock, self._whole():
            self._asked += 1
            self._jobs.write(message)
            self._jobs.flush()
        return self._asked

    def failed(self, ticket: int, pieces: Sequence[Piece]) -> list[Piece]:
        """Wait for a job and return the pieces that failed: all, if the process is dead."""
        with self._lock, self._whole():
            while self._answered < ticket:
                self._answers[self._answered + 1] = marshal.load(self._results)
                self._answered += 1
        answer = self._answers.pop(ticket, None)
        return list(pieces) if answer is None else [pieces[number] for number in answer]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """End the process where a message is not passed on whole: it would write on unseen."""
        try:
            yield
        except BaseException as error:
            if self.process.returncode is None:
                self.process.kill()
                self.process.wait()
                warnings.warn(_WARNING, stacklevel=2)
            if not isinstance(error, (OSError, EOFError, ValueError, TypeError)):
                raise


def _end_all(readers: list[_Reader], owner: int) -> None:
    """End processes, but not from a copy of the one that began them."""
    if os.getpid() != owner:
        return
    for reader in readers:
        _close(reader.process.stdin)
    for process in (reader.process for reader in readers):
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process.stdout)


def _close(pipe: Any) -> None:
    """Close a pipe, also one to a process that is dead."""
    with suppress(OSError):
        if not pipe.closed and pipe.writable():
            # Whoever was forked meanwhile holds the pipe open, so that its end is not seen.
            pipe.write(marshal.dumps(None))
        pipe.close()


def _forget(pools: dict[int, _Pool], address: int, file: int) -> None:
    """Give up memory that nothing refers to any more."""
    del pools[address]
    os.close(file)
