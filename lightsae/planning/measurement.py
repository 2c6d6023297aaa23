"""Measuring a machine for plans: single operations, then whole steps that are held against them."""

import importlib.metadata
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import torch
from lightsae_kernels import encode_topk, sparse_decode
from torch import nn

from lightsae.planning.calibration import Calibration
from lightsae.planning.devices import device_called
from lightsae.planning.memory import CPU_BLOCK
from lightsae.planning.shape import Shape
from lightsae.planning.step_time import Rates, step_time, update_of, work_of
from lightsae.planning.whole_steps import seconds_of_step
from lightsae.training.optimizer import SAEAdam

# Shapes of the whole steps: a small one that is all overhead, and some beyond the caches.
STEPS = (
    Shape(d_in=32, d_sae=256, k=4, batch=64),
    Shape(d_in=192, d_sae=12288, k=24, batch=512),
    Shape(d_in=320, d_sae=32768, k=16, batch=256),
    Shape(d_in=192, d_sae=16384, k=16, batch=384, regularizer="l1_l2_ratio"),
)
_REPEATS = 3


class Sizes:
    """Sizes of the single operations: on a GPU those that keep one busy."""

    def __init__(self, kind: str, small: bool = False) -> None:
        scale = 16 if small else 1
        gpu = kind == "gpu"
        self.copied = (1 << 30 if gpu else 1 << 27) // scale
        self.rows, self.d_in = (8192, 1024) if gpu else (1024 // scale, 512)
        self.latents = (32768 if gpu else 8192) // scale
        self.selected = (4096 if gpu else 512) // scale
        self.k = 32


def calibrate(device: str | None = None, *, small: bool = False) -> Calibration:
    """Measure this machine.

    Args:
        device: cpu or cuda; by default the GPU if there is one.
        small: At sizes that take a moment and tell little, for tests.

    Returns:
        What it gives of its ceilings.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = "gpu" if where.type == "cuda" else "cpu"
    with torch.device(where):
        rates = _operations(Sizes(kind, small), kind)
    name = torch.cuda.get_device_name(where) if kind == "gpu" else _cpu_name()
    known = device_called(name) if kind == "gpu" else None
    ceilings = {key: rate for key, rate in rates.items() if key.startswith(("product.", "copy"))}
    if known is not None:
        ceilings = {f"product.{key}": value for key, value in known.products.items()}
        ceilings["copy"] = known.bandwidth
    shares = {key: rate / ceilings.get(key, ceilings["copy"]) for key, rate in rates.items()}
    factor, overhead = _whole(Rates(ceilings, shares), kind, where, small)
    return Calibration(
        device=name,
        kind=kind,
        memory=_memory(where),
        threads=torch.get_num_threads(),
        ceilings=ceilings,
        efficiencies=shares,
        overhead=overhead,
        factor=factor,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: _version(name) for name in ("torch", "triton", "lightsae")},
    )


def _operations(sizes: Sizes, kind: str) -> dict[str, float]:
    """FLOP/s of products and bytes/s of everything else."""
    found = _copies(sizes.copied) | _products(sizes, kind)
    found["pass"] = found["copy"]
    if kind == "cpu":
        found["pass"] = _weight_pass(found["product.float32"], sizes)
    found |= _selection(sizes, kind, found["product.float32"])
    return found | _gather(sizes) | _updates(sizes, kind)


def _copies(size: int) -> dict[str, float]:
    """Bytes/s of a copy, read and written, and of writing memory that is fresh."""
    source = torch.empty(size, dtype=torch.uint8).fill_(1)
    target = torch.empty_like(source)
    written = fastest(lambda: torch.empty(size, dtype=torch.uint8).fill_(1))
    return {"copy": 2 * size / fastest(lambda: target.copy_(source)), "write": size / written}


def _products(sizes: Sizes, kind: str) -> dict[str, float]:
    """FLOP/s by dtype."""
    x, W = torch.randn(sizes.rows, sizes.d_in), torch.randn(sizes.latents, sizes.d_in)
    flops, found = 2.0 * sizes.rows * W.numel(), {}
    for dtype in (torch.float32, torch.bfloat16, *((torch.float16,) if kind == "gpu" else ())):
        left, right = x.to(dtype), W.to(dtype).t()
        out = torch.empty(sizes.rows, sizes.latents, dtype=dtype)
        seconds = fastest(partial(torch.mm, left, right, out=out))
        found[f"product.{str(dtype).removeprefix('torch.')}"] = flops / seconds
    return found


def _weight_pass(product: float, sizes: Sizes) -> float:
    """Bytes/s of W_enc in products of so few rows that each passes it anew."""
    N = 8 * sizes.latents
    rows = max(1, CPU_BLOCK // (4 * N))
    x, W, out = torch.randn(rows, sizes.d_in), torch.randn(N, sizes.d_in), torch.empty(rows, N)
    seconds = fastest(lambda: torch.mm(x, W.t(), out=out))
    computed = 2.0 * rows * W.numel() / product
    return 4 * W.numel() / max(seconds - computed, 0.02 * seconds)


def _selection(sizes: Sizes, kind: str, rate: float) -> dict[str, float]:
    """Bytes/s of activations that are selected from, and of those that a penalty is made of."""
    shape = Shape(16, sizes.latents, sizes.k, sizes.selected, regularizer="l1_l2_ratio")
    work = {each.name: each for each in work_of(shape, 1, kind)}
    product = work["product"].flops / rate
    x, W = torch.randn(shape.batch, shape.d_in), torch.randn(shape.d_sae, shape.d_in)
    weight, b_enc, b_dec = nn.Parameter(W), torch.zeros(shape.d_sae), torch.zeros(shape.d_in)

    def encode(regularizer: Literal["l1_l2_ratio"] | None) -> None:
        code = encode_topk(x, weight, b_enc, b_dec, shape.k, regularizer=regularizer)
        (code.values.sum() + code.penalty).backward()

    plain, penalised = fastest(lambda: encode(None)), fastest(lambda: encode("l1_l2_ratio"))
    selecting = max(plain - product, 0.1 * plain)
    of_penalty = max(penalised - plain - product, 0.1 * plain)
    return {
        "select": work["selection"].bytes / selecting,
        "penalty": work["penalty"].bytes / of_penalty,
    }


def _gather(sizes: Sizes) -> dict[str, float]:
    """Bytes/s of decoder rows."""
    B, N, D, k = sizes.rows, sizes.latents, sizes.d_in, sizes.k
    values, indices = torch.rand(B, k), torch.randint(N, (B, k))
    W_dec = torch.randn(N, D)
    seconds = fastest(lambda: sparse_decode(values, indices, W_dec))
    return {"decode": 4.0 * B * k * D / seconds}


def _updates(sizes: Sizes, kind: str) -> dict[str, float]:
    """Bytes/s of the optimizer, by the dtype of its moments."""
    states: tuple[Literal["float32", "bfloat16", "int8"], ...] = ("float32", "bfloat16", "int8")
    found = {}
    for state in states:
        shape = Shape(sizes.d_in, sizes.latents, 1, 1, state_dtype=state)
        pair = [nn.Parameter(torch.randn(shape.d_sae, shape.d_in)) for _ in range(2)]
        for each in pair:
            each.grad = torch.full_like(each, 1e-3)
        optimizer = SAEAdam(pair, state_dtype=state)
        optimizer.keep_unit_rows(pair[1])
        found[f"update.{state}"] = update_of(shape, 1, kind).bytes / fastest(optimizer.step)
    return found


def _whole(rates: Rates, kind: str, where: torch.device, small: bool) -> tuple[float, float]:
    """Factor and overhead of whole steps: the smallest is all overhead, the others all parts."""
    parts, rest = [], []
    for shape in STEPS[:1] * 2 if small else STEPS:
        timed = step_time(shape, 1, kind, rates, (), {})
        update = next(part.seconds for part in timed if part.name == "update")
        parts.append(sum(part.seconds for part in timed) - update)
        took = seconds_of_step(shape, where)
        rest.append(max(took - update, 0.1 * took))
    overhead = max(rest[0] - parts[0], 0.0)
    ratios = [
        max(seconds - overhead, 0.1 * seconds) / each
        for seconds, each in zip(rest[1:], parts[1:], strict=True)
    ]
    return median(ratios), overhead


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs after one that is not counted.

    Example:
        >>> fastest(lambda: None) < 1
        True
    """
    run()
    times = []
    for _ in range(_REPEATS):
        _wait()
        begun = perf_counter()
        run()
        _wait()
        times.append(perf_counter() - begun)
    return max(min(times), 1e-9)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory(where: torch.device) -> int:
    if where.type == "cuda":
        return int(torch.cuda.get_device_properties(where).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
