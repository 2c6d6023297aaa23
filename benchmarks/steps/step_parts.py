"""Where the time of a training step on the CPU goes, beside the bare product of the same run.

    python benchmarks/steps/step_parts.py
    python benchmarks/steps/step_parts.py --only lightsae "lightsae reg1" --rounds 3

The functions of the CPU path are wrapped with a clock; a part's time is without the parts that it
calls. The variants take turns, round by round, and the bare product runs between them.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightsae_kernels import cpu
from lightsae_kernels.cpu import bf16_screen, encode, encode_gradient, weight_gradients
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import own
from adapter import Sizes
from common import RESULTS, Row, write_rows
from peers.implementations import IMPLEMENTATIONS
from worker import BATCHES, synthetic_batches

SIZES = Sizes(batch=2048, d_in=384, d_sae=6144, k=32)
VARIANTS = ("lightsae", "lightsae reg1", "lightsae reg2", "lightsae bf16")
# Part, where its function is looked up, and the function's name there.
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("products", torch, "addmm"),
    ("products", torch, "mm"),
    ("rounding of the weight", bf16_screen.Screen, "of"),
    ("selection", encode, "select_in_banks"),
    ("selection", bf16_screen, "shortlist_topk"),
    ("candidates in float32", bf16_screen, "_products"),
    ("penalty", encode, "evaluate_penalty"),
    ("gradient of the penalty", encode_gradient, "regularizer_gradient_"),
    ("decode and residual", cpu, "residual_forward"),
    ("gradient of the values", cpu, "values_gradient"),
    ("order of the pairs", cpu, "latent_order"),
    ("weight gradients", encode_gradient, "weight_gradient"),
    ("weight gradients", weight_gradients, "weight_gradient"),
)
ORDER = (*dict.fromkeys(part for part, _, _ in PARTS), "optimizer", "rest")


class Clock:
    """Seconds of each part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = [0.0]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within the context as this part's."""
        self._inside.append(0.0)
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self.seconds[name] += spent - self._inside.pop()
            self._inside[-1] += spent

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts its time."""

        def run(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return run


@contextmanager
def wrapped(clock: Clock) -> Iterator[None]:
    """Within the context the functions of `PARTS` count their time."""
    found = [(place, name, getattr(place, name)) for _, place, name in PARTS]
    for (part, place, name), (_, _, function) in zip(PARTS, found, strict=True):
        setattr(place, name, clock.timed(part, function))
    try:
        yield
    finally:
        for place, name, function in found:
            setattr(place, name, function)


def step_parts(trainer: Any, batches: list[torch.Tensor]) -> dict[str, float]:
    """Median milliseconds of each part of a step, and of the whole as `step`."""
    samples = defaultdict(list)
    for x in batches:
        clock = Clock()
        with wrapped(clock), clock.part("rest"):
            loss = trainer.phases.forward(x)
            trainer.phases.backward(loss)
            with clock.part("optimizer"):
                trainer.phases.update()
        for part in ORDER:
            samples[part].append(1e3 * clock.seconds[part])
        samples["step"].append(1e3 * sum(clock.seconds.values()))
    return {part: statistics.median(times) for part, times in samples.items()}


def product_ms(x: torch.Tensor, d_sae: int, dtype: torch.dtype, repeats: int) -> float:
    """Median milliseconds of the encoder product alone."""
    x = x.to(dtype)
    W, b = torch.randn(d_sae, x.shape[1], dtype=dtype), torch.zeros(d_sae, dtype=dtype)
    out, times = torch.empty(len(x), d_sae, dtype=dtype), []
    for _ in range(repeats):
        begun = time.perf_counter()
        torch.addmm(b, x, W.t(), out=out)
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def measure(
    sizes: Sizes, variants: list[str], rounds: int, steps: int, warmup: int
) -> dict[str, dict[str, list[float]]]:
    """Of each variant and part the milliseconds of every round."""
    order = {"device": "cpu", "inputs": "float32"}
    batches = synthetic_batches(sizes, order)
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in variants}
    for _ in range(rounds):
        for name in variants:
            known = IMPLEMENTATIONS["cpu"][name]
            torch.manual_seed(0)
            trainer = own.build(sizes, batches[0], **{**known.options, "one_pass": True})
            for number in range(warmup):
                trainer.step(batches[number % BATCHES])
            here = [batches[number % BATCHES] for number in range(warmup, warmup + steps)]
            dtype = getattr(torch, known.dtype)
            found[name]["bare product"].append(product_ms(batches[0], sizes.d_sae, dtype, steps))
            for part, ms in step_parts(trainer, here).items():
                found[name][part].append(ms)
    return found


def table(found: dict[str, dict[str, list[float]]], sizes: Sizes) -> Table:
    """Medians over the rounds; a column for each variant."""
    title = f"Milliseconds of a step, {sizes}, {torch.get_num_threads()} threads"
    grid = Table("", *found, title=title, title_justify="left")
    for part in (*ORDER, "step", "bare product"):
        medians = [statistics.median(parts[part]) for parts in found.values()]
        if any(medians):
            grid.add_row(part, *(f"{ms:.1f}" if ms else "" for ms in medians))
    return grid


def rows(found: dict[str, dict[str, list[float]]], sizes: Sizes) -> Iterator[Row]:
    """One row of the CSV for each part."""
    for name, parts in found.items():
        for part, ms in parts.items():
            if any(ms):
                yield {
                    "benchmark": "step_parts", "operation": part, "implementation": name,
                    "sizes": f"B={sizes.batch} d_in={sizes.d_in} d_sae={sizes.d_sae} k={sizes.k}",
                    "dtype": IMPLEMENTATIONS["cpu"][name].dtype, "device": "cpu",
                    "threads": torch.get_num_threads(), "metric": "time", "unit": "ms",
                    "median": round(statistics.median(ms), 3), "low": round(min(ms), 3),
                    "high": round(max(ms), 3), "samples": len(ms),
                }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    for name, default in (("rounds", 5), ("steps", 20), ("warmup", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_parts.csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(SIZES, options.only, options.rounds, options.steps, options.warmup)
    console = Console()
    console.print(table(found, SIZES))
    write_rows(options.out, rows(found, SIZES))
    console.print(f"written to {options.out}", highlight=False)


if __name__ == "__main__":
    main()
