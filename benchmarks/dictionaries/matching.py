"""Matching of two dictionaries: seconds and memory.

    python benchmarks/dictionaries/matching.py

The other dictionary has half of the latents of the first, in another order and turned to a cosine
of some .9, as two seeds share them; the rest is random. Two operations run once each: the nearest
latent both ways, and one-to-one matches, which are greedy at this size. Memory is the peak of the
process over what it held before the decoders were made, so they are part of it. Ends with status 1
if the peak is not under 2 GiB, or a shared latent is not found.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightsae.dictionaries import match_one_to_one, nearest_both_ways

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, write_rows
from peers.resident_size import reset_peak, resident_mib

GOAL = 2.0
Row = dict[str, str | int | float]


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    start = resident_mib("VmRSS")
    W, others, place = decoders(options.latents, options.d_in)
    cases: dict[str, Callable[[], Tensor]] = {
        "nearest, both ways": lambda: nearest_both_ways(W, others)[0].index,
        "one to one": lambda: partners(W, others),
    }
    rows, right = [], True
    for name, case in cases.items():
        reset_peak()
        begun = time.perf_counter(), time.process_time()
        found = case()
        seconds, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
        right &= bool((found == place)[place >= 0].all())
        rows += [
            row(name, "time", "s", seconds, options),
            row(name, "processor time", "s", processor, options),
            row(name, "peak over start", "GiB", (resident_mib("VmHWM") - start) / 1024, options),
        ]
    write_rows(options.out, rows)
    Console().print(table(rows, options))
    peaks = [float(each["median"]) for each in rows if each["unit"] == "GiB"]
    return 0 if right and max(peaks) < GOAL else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"latents": 65_536, "d_in": 1024, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    out = RESULTS / "matching.csv"
    parser.add_argument("--out", type=Path, default=out, help="CSV file")
    return parser.parse_args()


def decoders(latents: int, d_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two decoders of unit rows, and where each latent of the first is in the other, or -1."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(latents, generator=generator)
    W, others = (torch.randn(latents, d_in, generator=generator) for _ in range(2))
    shared = torch.arange(0, latents, 2)
    # cos = 1 / sqrt(1 + .25) = .89
    others[order[shared]] = W[shared] + 0.5 * others[order[shared]]
    for each in (W, others):
        each /= torch.linalg.vector_norm(each, dim=1, keepdim=True)
    place = torch.full((latents,), -1).scatter(0, shared, order[shared])
    return W, others, place


def partners(W: Tensor, others: Tensor) -> Tensor:
    """Of each latent its partner."""
    pairs = match_one_to_one(W, others).pairs
    return torch.full((len(W),), -1).scatter(0, pairs[:, 0], pairs[:, 1])


def row(name: str, metric: str, unit: str, found: float, options: argparse.Namespace) -> Row:
    return {
        "benchmark": "matching", "operation": name, "implementation": "lightsae",
        "sizes": f"d_sae={options.latents} d_other={options.latents} d_in={options.d_in}",
        "dtype": "float32", "device": "cpu", "threads": options.threads, "metric": metric,
        "unit": unit, "median": found, "low": found, "high": found, "samples": 1,
    }  # fmt: skip


def table(rows: list[Row], options: argparse.Namespace) -> Table:
    size = f"{options.latents} x {options.latents}"
    found = Table("", "", "", title=f"Matching of {size} latents at d_in = {options.d_in}")
    for each in rows:
        found.add_row(
            str(each["operation"]), str(each["metric"]), f"{each['median']:.3g} {each['unit']}"
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
