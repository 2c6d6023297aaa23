"""Measure one implementation in this process: `worker.py JSON`, a JSON line on stdout.

Runs in the environment of a peer, so it needs torch and the standard library only.
"""

import gc
import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

import torch
from adapter import Sizes, Trainer
from torch import Tensor

BATCHES = 8


def main() -> None:
    with redirect_stdout(sys.stderr):
        report = measure(json.loads(sys.argv[1]))
    print(json.dumps(report))


def measure(order: dict) -> dict[str, float | str | None]:
    """Time and memory of the ordered number of steps."""
    torch.set_num_threads(order["threads"])
    sizes, warmup = Sizes(**order["sizes"]), order["warmup"]
    build: Callable[..., Trainer] = importlib.import_module(order["adapter"]).build
    load_lazy_imports(build, order["options"])
    batches = synthetic_batches(sizes)
    gc.collect()
    before = resident_mib("VmRSS")
    torch.manual_seed(0)
    trainer = build(sizes, batches[0], **order["options"])
    resettable = reset_peak()
    times = []
    for number in range(warmup + order["steps"]):
        started = time.perf_counter()
        trainer.step(batches[number % BATCHES])
        times.append(1e3 * (time.perf_counter() - started))
    peak = resident_mib("VmHWM")
    return {
        "step_ms": median(times[warmup:]),
        "fastest_ms": min(times[warmup:]),
        "memory_mib": peak - before if resettable else None,
        "fvu": unexplained(trainer, batches[0]),
        "torch": torch.__version__,
        "version": importlib.metadata.version(order["package"]),
    }


def load_lazy_imports(build: Callable[..., Trainer], options: dict) -> None:
    """Take one tiny step: the first one imports parts of torch worth 150 MiB.

    Some peers have imported them before; elsewhere they would count as memory over start.
    """
    sizes = Sizes(batch=32, d_in=16, d_sae=64, k=4)
    x = torch.randn(sizes.batch, sizes.d_in)
    build(sizes, x, **options).step(x)


def synthetic_batches(sizes: Sizes) -> list[Tensor]:
    """Sparse mixtures of random directions, a mean and noise, mean ||x - mean||^2 = 1."""
    generator = torch.Generator().manual_seed(1)
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
        batches.append(x / x.square().sum(dim=1).mean().sqrt() + centre)
    return batches


@torch.no_grad()
def unexplained(trainer: Trainer, x: Tensor) -> float:
    """Fraction of variance unexplained: 1 for a reconstruction by the mean."""
    error = (x - trainer.reconstruct(x)).square().sum()
    return float(error / (x - x.mean(dim=0)).square().sum())


def reset_peak() -> bool:
    """Set VmHWM back to VmRSS; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_mib(field: str) -> float:
    """A size in /proc/self/status: VmRSS is what is held, VmHWM its peak since the reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
