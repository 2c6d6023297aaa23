"""Time and memory of calls, in rounds that visit every call before the next one begins."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from operations.inputs import Case

FLUSHED_BYTES = 256 << 20  # several times any L2
ROUND_MS = 60.0
MOST_REPEATS = 20
MOST_FLUSHES = 64


@dataclass
class Timed:
    """What was measured of a case.

    Attributes:
        case: The case.
        memory_mib: Peak of the device memory that one call allocates; None on the CPU.
        repeats: Calls per round.
        flushes: Passes over the flush buffer before a call.
        times_ms: On the device, from the first kernel of a call to the end of its last.
        launches_ms: Until the call returned to its caller.
    """

    case: Case
    memory_mib: float | None
    repeats: int
    flushes: int
    times_ms: list[float] = field(default_factory=list)
    launches_ms: list[float] = field(default_factory=list)

    def release(self) -> None:
        """Let go of the tensors of the call."""
        self.case = self.case._replace(call=lambda: None)


class Stopwatch:
    """Times calls on one device.

    Before each call a buffer larger than L2 is written, so often that the host has queued the call
    before the device is done with the buffer: a time is of the device alone, and what the host
    needs to queue a call is told apart from it.
    """

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self._buffer = torch.empty(0)
        self._flush_ms = math.inf
        if self.on_gpu:
            self._buffer = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=device)
            self._flush_ms = min(self.once(self._buffer.zero_, 1)[0] for _ in range(5))

    def prepare(self, case: Case) -> Timed:
        """Warm a case up, measure its memory and choose how often it is repeated."""
        case.call()
        memory = self._peak_mib(case.call)
        device_ms, launch_ms = self.once(case.call, 1)
        repeats = max(1, min(MOST_REPEATS, int(ROUND_MS / max(device_ms, 1e-3))))
        flushes = min(MOST_FLUSHES, 1 + math.ceil(1.5 * launch_ms / self._flush_ms))
        return Timed(case, memory, repeats, flushes)

    def rounds(self, timed: list[Timed], count: int, deadline: float) -> None:
        """Repeat every case in every round; past the deadline no second round begins."""
        for number in range(count):
            if number and time.monotonic() > deadline:
                return
            for one in timed:
                for _ in range(one.repeats):
                    device_ms, launch_ms = self.once(one.case.call, one.flushes)
                    one.times_ms.append(device_ms)
                    one.launches_ms.append(launch_ms)

    def once(self, call: Callable[[], object], flushes: int) -> tuple[float, float]:
        """Milliseconds on the device and until the call returned."""
        if not self.on_gpu:
            begin = time.perf_counter()
            call()
            elapsed = 1e3 * (time.perf_counter() - begin)
            return elapsed, elapsed
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(flushes):
            self._buffer.zero_()
        start.record()
        begin = time.perf_counter()
        call()
        launched = time.perf_counter() - begin
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end), 1e3 * launched

    def _peak_mib(self, call: Callable[[], object]) -> float | None:
        if not self.on_gpu:
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def quantiles(samples: list[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile."""
    points = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    low, middle, high = torch.tensor(samples, dtype=torch.float64).quantile(points).tolist()
    return low, middle, high
