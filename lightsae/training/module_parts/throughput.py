"""How many rows a run trains on per second."""

from time import perf_counter


class Throughput:
    """A clock over optimizer steps, read whenever metrics are logged.

    Example:
        >>> throughput = Throughput()
        >>> throughput.per_second(step=0, rows_per_step=32) is None
        True
        >>> throughput.per_second(step=10, rows_per_step=32) > 0
        True
    """

    def __init__(self) -> None:
        self._read: tuple[float, int] | None = None

    def stop(self) -> None:
        """Leave out what comes before the clock is started or read again."""
        self._read = None

    def start(self, step: int) -> None:
        """Start at a step, unless the clock is running."""
        if self._read is None:
            self._read = perf_counter(), step

    def per_second(self, step: int, rows_per_step: int) -> float | None:
        """Rows per second since the last reading; None without one, or without a step since."""
        now, before = perf_counter(), self._read
        self._read = now, step
        if before is None or step <= before[1]:
            return None
        return rows_per_step * (step - before[1]) / (now - before[0])
