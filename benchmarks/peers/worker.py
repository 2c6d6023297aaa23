"""Measure implementations in this process: `worker.py JSON`, a JSON line on stdout.

The argument is a list of orders, and a list of reports comes back. To be timed each implementation
has a process of its own.

Runs in the environment of a peer, so it needs torch and the standard library only.
"""

import gc
import importlib
import importlib.metadata
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from itertools import pairwise
from statistics import median

import torch
from adapter import Sizes, Trainer
from resident_size import reset_peak, resident_mib
from torch import Tensor

BATCHES = 8
FVU_ROWS = 4096  # a dense code of a large batch in float32 may not fit
PHASES = ("forward", "backward", "update")


def main() -> None:
    with redirect_stdout(sys.stderr):
        reports = [measure(order) for order in json.loads(sys.argv[1])]
    print(json.dumps(reports))


def measure(order: dict) -> dict[str, float | str | None]:
    """Time and memory of the ordered number of steps."""
    torch.set_num_threads(order["threads"])
    torch.set_default_device(order["device"])
    sizes, warmup = Sizes(**order["sizes"]), order["warmup"]
    build: Callable[..., Trainer] = importlib.import_module(order["adapter"]).build
    load_lazy_imports(build, order)
    batches = synthetic_batches(sizes, order)
    gc.collect()
    machine = Cuda() if order["device"] == "cuda" else Processor()
    torch.manual_seed(0)
    trainer = build(sizes, batches[0], **order["options"])
    machine.start()
    for number in range(warmup):
        trainer.step(batches[number % BATCHES])
    steps = [batches[(warmup + number) % BATCHES] for number in range(order["steps"])]
    times, memory = machine.times(trainer, steps), machine.memory(trainer)
    fvu = unexplained(trainer, batches[0][:FVU_ROWS])
    if fvu is not None and not math.isfinite(fvu):
        raise RuntimeError(
            f"not timed: the reconstruction is {fvu} after {warmup + len(steps)} steps"
        )
    found = {"fvu": fvu, "torch": torch.__version__, "version": version_of(order["package"])}
    return {**times, **memory, **found}


def version_of(package: str) -> str:
    """Of an installed package; this one may lie on PYTHONPATH only."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "checkout"


class Processor:
    """The CPU: its clock, and the resident size of this process."""

    def __init__(self) -> None:
        self.before = resident_mib("VmRSS")
        self.resettable = False

    def start(self) -> None:
        """Count the peak from here on."""
        self.resettable = reset_peak()

    def times(self, trainer: Trainer, batches: list[Tensor]) -> dict[str, float]:
        """Median and fastest step, and the medians of its phases."""
        marks = [[time.perf_counter() for _ in phases(trainer, x)] for x in batches]
        return summary([[1e3 * (b - a) for a, b in pairwise(one)] for one in marks])

    def memory(self, trainer: Trainer) -> dict[str, float]:
        """Peak over what was held before the model was built."""
        peak = resident_mib("VmHWM")
        return {"memory_mib": peak - self.before} if self.resettable else {}


class Cuda:
    """The GPU: its own clock, and what torch's allocator handed out."""

    def __init__(self) -> None:
        self.before = torch.cuda.memory_allocated()

    def start(self) -> None:
        """Count the peak from here on."""
        torch.cuda.reset_peak_memory_stats()

    def times(self, trainer: Trainer, batches: list[Tensor]) -> dict[str, float]:
        """Median and fastest step, and the medians of its phases."""
        marks = [[_event() for _ in phases(trainer, x)] for x in batches]
        torch.cuda.synchronize()
        return summary([[a.elapsed_time(b) for a, b in pairwise(one)] for one in marks])

    def memory(self, trainer: Trainer) -> dict[str, float]:
        """Peak over what was held before, and over parameters and optimizer state besides."""
        peak = torch.cuda.max_memory_allocated() - self.before
        found = {"memory_mib": peak / 2**20}
        if trainer.optimizer is not None:
            found["memory_over_state_mib"] = (peak - held_bytes(trainer.optimizer)) / 2**20
        return found


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def held_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Parameters and the optimizer's state."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = [t for state in optimizer.state.values() for t in state.values()]
    return sum(t.nbytes for t in [*parameters, *states] if isinstance(t, Tensor))


def phases(trainer: Trainer, x: Tensor) -> Iterator[None]:
    """Go through a step; yields before it and after each phase."""
    yield
    if trainer.phases is None:
        trainer.step(x)
        yield
        return
    loss = trainer.phases.forward(x)
    yield
    trainer.phases.backward(loss)
    yield
    trainer.phases.update()
    yield


def summary(steps: list[list[float]]) -> dict[str, float]:
    """Of each step the milliseconds of its phases."""
    whole = [sum(parts) for parts in steps]
    found = {"step_ms": median(whole), "fastest_ms": min(whole)}
    if len(steps[0]) == len(PHASES):
        found |= {f"{name}_ms": median(one[i] for one in steps) for i, name in enumerate(PHASES)}
    return found


def load_lazy_imports(build: Callable[..., Trainer], order: dict) -> None:
    """Take one tiny step: the first one imports parts of torch worth 150 MiB.

    Some peers have imported them before; elsewhere they would count as memory over start.
    """
    sizes = Sizes(batch=32, d_in=16, d_sae=64, k=4)
    x = torch.randn(sizes.batch, sizes.d_in, dtype=getattr(torch, order["inputs"]))
    build(sizes, x, **order["options"]).step(x)
    torch.compiler.reset()  # or what is compiled next would be compiled for any shape


def synthetic_batches(sizes: Sizes, order: dict) -> list[Tensor]:
    """Sparse mixtures of random directions, a mean and noise, mean ||x - mean||^2 = 1."""
    generator = torch.Generator(order["device"]).manual_seed(1)
    directions = torch.randn(1024, sizes.d_in, generator=generator)
    centre = torch.randn(sizes.d_in, generator=generator) * sizes.d_in**-0.5
    batches = []
    for _ in range(BATCHES):
        chosen = torch.randint(1024, (sizes.batch, 16), generator=generator)
        weights = torch.rand(sizes.batch, 16, generator=generator)
        x = torch.nn.functional.embedding_bag(
            chosen, directions, per_sample_weights=weights, mode="sum"
        )
        x += 0.3 * torch.randn(x.shape, generator=generator)
        x -= x.mean(dim=0)
        x = x / x.square().sum(dim=1).mean().sqrt() + centre
        batches.append(x.to(getattr(torch, order["inputs"])))
    return batches


@torch.no_grad()
def unexplained(trainer: Trainer, x: Tensor) -> float | None:
    """Fraction of variance unexplained: 1 for a reconstruction by the mean."""
    if trainer.reconstruct is None:
        return None
    error = (x - trainer.reconstruct(x)).square().sum()
    return float(error / (x - x.mean(dim=0)).square().sum())


if __name__ == "__main__":
    main()
