"""What an anchor to a large vocabulary costs on the CPU, beside a training step of the same run.

    python benchmarks/steps/anchor.py

One block of latents and vectors is measured, forward and backward; the whole is as many of them as
the sizes hold. `every` is the least number of steps between two anchors that keeps their mean cost
under a tenth of a step.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, Row, write_rows

from lightsae.sae import SparseAutoencoder, TopK, objective
from lightsae.sae.losses.anchor_function import AnchorFunction, Reduction, unit_rows
from lightsae.training import SAEAdam

SHARE = 0.1


class Sizes(NamedTuple):
    """V vectors, d_sae latents, both of width d_in; a step has batch rows; a block is chunk^2."""

    vectors: int = 50257
    d_sae: int = 49152
    d_in: int = 768
    batch: int = 4096
    k: int = 32
    chunk: int = 2048

    def __str__(self) -> str:
        return (
            f"V={self.vectors} d_sae={self.d_sae} d_in={self.d_in} B={self.batch} k={self.k} "
            f"chunk={self.chunk}"
        )


def milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Of each call, after one that does not count."""
    call()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - begun))
    return found


def blocks(sizes: Sizes, reduction: Reduction, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of one block, forward and backward."""
    W = torch.randn(sizes.chunk, sizes.d_in, requires_grad=True)
    # Of unit norm, as an anchor keeps them.
    unit, _ = unit_rows(torch.randn(sizes.chunk, sizes.d_in))
    forward, backward = [], []
    for _ in range(repeats + 1):
        W.grad, begun = None, time.perf_counter()
        value, _ = AnchorFunction.apply(W, unit, reduction, 0.05, sizes.chunk)
        between = time.perf_counter()
        value.backward()
        forward.append(1e3 * (between - begun))
        backward.append(1e3 * (time.perf_counter() - between))
    return {"forward": forward[1:], "backward": backward[1:]}


def whole(sizes: Sizes, reduction: Reduction, found: dict[str, list[float]]) -> float:
    """Milliseconds of all blocks; the max is not made again in the backward pass."""
    rows, columns = sizes.d_sae / sizes.chunk, sizes.vectors / sizes.chunk
    forward, backward = (statistics.median(found[part]) for part in ("forward", "backward"))
    again = 1 if reduction == "max" else columns
    return rows * (columns * forward + again * backward)


def step(sizes: Sizes, repeats: int) -> list[float]:
    """Milliseconds of a training step: forward, backward and `SAEAdam`."""
    sae = SparseAutoencoder(sizes.d_in, sizes.d_sae, TopK(sizes.k))
    optimizer = SAEAdam(sae.parameters(), lr=1e-4)
    optimizer.keep_unit_rows(sae.W_dec)
    x = torch.randn(sizes.batch, sizes.d_in)

    def one() -> None:
        optimizer.zero_grad()
        objective(sae, x).loss.backward()
        optimizer.step()

    return milliseconds(one, repeats)


def measure(sizes: Sizes, repeats: int, steps: int) -> Iterator[Row]:
    """Rows of the CSV: the step, and of each reduction its block, the whole and `every`."""
    common = {
        "benchmark": "anchor", "implementation": "lightsae", "sizes": str(sizes),
        "dtype": "float32", "device": "cpu", "threads": torch.get_num_threads(),
    }  # fmt: skip
    times = step(sizes, steps)
    of_step = statistics.median(times)
    yield common | _time("step", times)
    for reduction in get_args(Reduction):
        found = blocks(sizes, reduction, repeats)
        for part, ms in found.items():
            yield common | _time(f"{reduction} block {part}", ms)
        cost = whole(sizes, reduction, found)
        every = max(1, math.ceil(cost / (SHARE * of_step)))
        for what, metric, unit, value in (
            ("whole", "computed time", "ms", round(cost, 1)),
            ("every", "computed", "steps", every),
        ):
            yield common | {
                "operation": f"{reduction} {what}", "metric": metric, "unit": unit,
                "median": value, "samples": repeats,
            }  # fmt: skip


def _time(operation: str, ms: list[float]) -> Row:
    return {
        "operation": operation, "metric": "time", "unit": "ms",
        "median": round(statistics.median(ms), 3), "low": round(min(ms), 3),
        "high": round(max(ms), 3), "samples": len(ms),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in Sizes()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    for name, default in (("repeats", 9), ("steps", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--out", type=Path, default=RESULTS / "anchor.csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sizes = Sizes(*(getattr(options, name) for name in Sizes._fields))
    rows = list(measure(sizes, options.repeats, options.steps))
    table = Table("", "median", "", title=f"{sizes}, {options.threads} threads")
    for row in rows:
        table.add_row(str(row["operation"]), str(row["median"]), str(row["unit"]))
    Console().print(table)
    write_rows(options.out, rows)


if __name__ == "__main__":
    main()
