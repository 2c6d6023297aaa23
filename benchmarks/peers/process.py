"""Run a worker in a process of its own, and watch what the rest of the machine does meanwhile."""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from peers.implementations import IMPLEMENTATIONS, Implementation

WORKER = Path(__file__).with_name("worker.py")


FIGURES = (
    "step_ms", "fastest_ms", "forward_ms", "backward_ms", "update_ms", "memory_mib",
    "memory_over_state_mib", "fvu",
)  # fmt: skip


@dataclass
class Measured:
    """What the processes of one implementation reported, a value per round.

    Attributes:
        step_ms: Median over the steps.
        fastest_ms: Minimum over the steps.
        forward_ms: Median over the steps, where a step can be taken apart; so the next two.
        backward_ms: Gradients.
        update_ms: Optimizer.
        memory_mib: Peak during the steps less what was held before the model was built: resident
            on the CPU, allocated on a GPU.
        memory_over_state_mib: That without parameters and optimizer state, on a GPU.
        fvu: Fraction of variance unexplained after the steps.
        elsewhere: Share of all processors that other processes and other machines took.
    """

    version: str = ""
    torch: str = ""
    step_ms: list[float] = field(default_factory=list)
    fastest_ms: list[float] = field(default_factory=list)
    forward_ms: list[float] = field(default_factory=list)
    backward_ms: list[float] = field(default_factory=list)
    update_ms: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    memory_over_state_mib: list[float] = field(default_factory=list)
    fvu: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=list)

    def add(self, report: dict, elsewhere: float) -> None:
        """Append a round."""
        self.version, self.torch = report["version"], report["torch"]
        self.elsewhere.append(elsewhere)
        for name in FIGURES:
            if report.get(name) is not None:
                getattr(self, name).append(report[name])


def interpreter(name: str, options: argparse.Namespace) -> Path:
    """Python of the environment that an implementation needs."""
    environment, folder = IMPLEMENTATIONS[options.device][name].environment, options.peers
    return folder / environment / "bin" / "python" if environment else Path(sys.executable)


def run(
    names: list[str], options: argparse.Namespace, limit: float = math.inf
) -> tuple[list[dict], float]:
    """Measure implementations once, in one process: reports and the share of processors elsewhere.

    Raises:
        RuntimeError: If the process fails, with the last line it wrote.
        TimeoutError: If it takes longer than the limit, in seconds; it is ended.
    """
    orders = [_order(IMPLEMENTATIONS[options.device][name], options) for name in names]
    command = [str(interpreter(names[0], options)), str(WORKER), json.dumps(orders)]
    busy, own, started = _busy_seconds(), _child_seconds(), time.perf_counter()
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, env=_environment(options),
            timeout=limit if math.isfinite(limit) else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"not done after {limit:.0f} s") from error
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
        raise RuntimeError(lines[-1])
    others = _busy_seconds() - busy - (_child_seconds() - own)
    available = (os.cpu_count() or 1) * (time.perf_counter() - started)
    return json.loads(process.stdout), max(0.0, others / available)


def _order(implementation: Implementation, options: argparse.Namespace) -> dict:
    return {
        "adapter": implementation.adapter,
        "package": implementation.package,
        "options": implementation.options,
        "inputs": implementation.inputs,
        "device": options.runs_on,
        "sizes": options.sizes,
        "threads": options.threads,
        "warmup": options.warmup,
        "steps": options.steps,
    }


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Thread counts before torch starts; no accelerator unless asked for, no network."""
    threads = str(options.threads)
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    if options.runs_on == "cpu":
        offline["CUDA_VISIBLE_DEVICES"] = ""
    return os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} | offline


def _busy_seconds() -> float:
    """Processor time of the whole machine since it started, time stolen from it included."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _child_seconds() -> float:
    """Processor time of the processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
