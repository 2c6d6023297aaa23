"""Monosemanticity of all latents: one pass over sparse codes against all pairs of images.

    python benchmarks/monosemanticity.py

Both start from the same codes [images, k] and unit-norm embeddings, in float64. All pairs, for all
latents at once, are a product of the cosines [images, images] with the dense activations
[images, d_sae]: images^2 d_sae multiplications. One pass is `Monosemanticity`, updated batch by
batch. The two take turns, on one thread: on a busy machine, two would measure how long one waits
for the other. Figures are seconds, processor seconds, their ratios, and the largest difference of a
score. Ends with status 1 if one pass is less than 100 times faster in either, or a score differs by
more than 1e-9.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import RESULTS, write_rows
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightsae.metrics import Monosemanticity

ONE_PASS, ALL_PAIRS = "one pass", "all pairs"
GOAL, TOLERANCE = 100.0, 1e-9
Results = dict[str, tuple[str, list[float]]]


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    results = measure(options)
    write_rows(options.out, rows(results, options))
    Console().print(table(results, options))
    ratios = (found for unit, found in results.values() if unit == "x")
    fast = all(statistics.median(found) >= options.goal for found in ratios)
    return 0 if fast and max(results["largest difference"][1]) <= TOLERANCE else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = {"images": 10_000, "d_sae": 8192, "k": 32, "d_embed": 64, "batch": 2048}
    for name, default in {**counts, "rounds": 3, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--goal", type=float, default=GOAL, help=f"default {GOAL:g} times faster")
    out = RESULTS / "monosemanticity.csv"
    parser.add_argument("--out", type=Path, default=out, help="CSV file")
    return parser.parse_args()


def codes(options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Activations [images, k], distinct latents [images, k] and unit-norm embeddings."""
    generator = torch.Generator().manual_seed(0)
    shape = options.images, options.k
    values = 0.1 + torch.rand(*shape, generator=generator, dtype=torch.float64)
    noise = torch.rand(options.images, options.d_sae, generator=generator)
    embeddings = torch.randn(options.images, options.d_embed, generator=generator).double()
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    return values, noise.topk(options.k, dim=1).indices, unit


def all_pairs(values: Tensor, indices: Tensor, unit: Tensor, d_sae: int) -> Tensor:
    """Scores [d_sae] from the cosines of all pairs of images; NaN without a pair."""
    w = values.new_zeros(len(values), d_sae).scatter_(1, indices, values)
    low, high = w.aminmax(dim=0)
    w = (w - low) / (high - low)
    own = w.square().sum(0)
    return ((w * (unit @ unit.T @ w)).sum(0) - own) / (w.sum(0).square() - own)


def one_pass(values: Tensor, indices: Tensor, unit: Tensor, d_sae: int, batch: int) -> Tensor:
    """Scores [d_sae] of `Monosemanticity`."""
    metric = Monosemanticity(d_sae, unit.shape[1])
    for part in zip(values.split(batch), indices.split(batch), unit.split(batch), strict=True):
        metric.update(*part)
    return metric.compute().scores


def measure(options: argparse.Namespace) -> Results:
    """Seconds of each, one value per round, the ratio of each round and how far scores differ."""
    data = codes(options)
    cases: dict[str, Callable[[], Tensor]] = {
        ONE_PASS: lambda: one_pass(*data, options.d_sae, options.batch),
        ALL_PAIRS: lambda: all_pairs(*data, options.d_sae),
    }
    clocks = {"": time.perf_counter, ", processor": time.process_time}
    taken: dict[tuple[str, str], list[float]] = {(n, c): [] for c in clocks for n in cases}
    differences = []
    cases[ONE_PASS]()
    for _ in range(options.rounds):
        scores = {}
        for name, case in cases.items():
            start = {clock: read() for clock, read in clocks.items()}
            scores[name] = case()
            for clock, read in clocks.items():
                taken[name, clock].append(read() - start[clock])
        differences.append(difference(scores[ONE_PASS], scores[ALL_PAIRS]))
    results: Results = {name + clock: ("s", found) for (name, clock), found in taken.items()}
    for clock in clocks:
        pairs = zip(taken[ALL_PAIRS, clock], taken[ONE_PASS, clock], strict=True)
        results[f"{ALL_PAIRS} / {ONE_PASS}{clock}"] = ("x", [other / one for other, one in pairs])
    return {**results, "largest difference": ("", differences)}


def difference(scores: Tensor, others: Tensor) -> float:
    """Largest difference of two scores; infinite if not the same latents have one."""
    if not torch.equal(scores.isnan(), others.isnan()):
        return torch.inf
    return float((scores - others).abs().nan_to_num(0).max())


def rows(results: Results, options: argparse.Namespace) -> list[dict[str, str | int | float]]:
    names = ("images", "d_sae", "k", "d_embed", "batch")
    sizes = " ".join(f"{name}={getattr(options, name)}" for name in names)
    return [
        {
            "benchmark": "monosemanticity", "implementation": "lightsae", "sizes": sizes,
            "dtype": "float64", "device": "cpu", "threads": options.threads, "metric": name,
            "unit": unit, "median": statistics.median(values), "low": min(values),
            "high": max(values), "samples": len(values),
        }
        for name, (unit, values) in results.items()
    ]  # fmt: skip


def table(results: Results, options: argparse.Namespace) -> Table:
    title = f"Monosemanticity of {options.d_sae} latents over {options.images} images"
    found = Table("", "median", "fastest", "slowest", title=title)
    for name, (unit, values) in results.items():
        figures = statistics.median(values), min(values), max(values)
        found.add_row(name, *(f"{figure:.3g} {unit}".strip() for figure in figures))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
