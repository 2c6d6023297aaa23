"""A background thread that writes one batch while the next is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class WriteBehind:
    """Does one piece of work after the other in a thread, at most one behind the caller.

    Example:
        >>> done = []
        >>> with WriteBehind() as behind:
        ...     for number in range(3):
        ...         behind.do(lambda number=number: done.append(number))
        ...     behind.wait()
        >>> done
        [0, 1, 2]
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "write")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()

    def do(self, work: Callable[[], None]) -> None:
        """Begin a piece of work when the one before is done; raises what that raised."""
        self.wait()
        self._under_way = self._thread.submit(work)

    def wait(self) -> None:
        """Wait for what is under way; raises what it raised."""
        if self._under_way is not None:
            self._under_way.result()
