"""A forward pass of a ViT-S with an autoencoder attached, beside both alone.

    python benchmarks/hooks.py

The limit is the bare pass plus the autoencoder's own encode and decode of the layer's output. Four
ways to attach are measured: with the error term and nothing else, recording codes, the
reconstruction in place of the output, and 32 latents scaled beside the error term. All take turns;
figures are medians of milliseconds and of ratios to the limit of the same round. Ends with status 1
if a way costs more than 1.05 times the limit.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import timm
import torch
from common import RESULTS, write_rows
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightsae.interventions import Scale, attach
from lightsae.sae import SparseAutoencoder, TopK

LAYER, D_SAE, K, EDITED, GOAL = "blocks.6", 6144, 32, 32, 1.05
BARE, SAE, LIMIT = "bare pass", "encode and decode", "limit"


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False).eval()
    sae = SparseAutoencoder(384, D_SAE, TopK(K))
    with torch.no_grad():
        times = measure(model, sae, torch.randn(options.batch, 3, 224, 224), options.rounds)
    ratios = {
        name: [one / limit for one, limit in zip(times[name], times[LIMIT], strict=True)]
        for name in times
        if name not in (BARE, SAE, LIMIT)
    }
    record(times, ratios, options)
    Console().print(table(times, ratios))
    return int(any(statistics.median(found) > GOAL for found in ratios.values()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"batch": 8, "rounds": 15, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--out", type=Path, default=RESULTS / "hooks.csv", help="CSV file")
    return parser.parse_args()


def measure(
    model: nn.Module, sae: SparseAutoencoder, images: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each way, of as many rounds; one more goes before them."""
    with attach(model, {LAYER: sae}) as attached, attached.record(activations=True) as seen:
        model(images)
    activations = seen[LAYER].activations
    assert activations is not None
    rows = activations.reshape(-1, sae.d_in)
    latents = seen[LAYER].code.indices.flatten().unique()[:EDITED]
    ways: dict[str, Callable[[], object]] = {
        BARE: lambda: model(images),
        SAE: lambda: sae.decode(sae.encode(rows)),
        "error term": attached_pass(model, sae, images),
        "codes recorded": attached_pass(model, sae, images, record=True),
        "reconstruction": attached_pass(model, sae, images, error_term=False),
        f"{EDITED} latents scaled": attached_pass(model, sae, images, latents=latents),
    }
    times = defaultdict(list)
    for round_ in range(rounds + 1):
        for name, run in ways.items():
            begun = time.perf_counter()
            run()
            if round_:
                times[name].append(time.perf_counter() - begun)
    times[LIMIT] = [sum(pair) for pair in zip(times[BARE], times[SAE], strict=True)]
    return dict(times)


def attached_pass(
    model: nn.Module,
    sae: SparseAutoencoder,
    images: Tensor,
    *,
    error_term: bool = True,
    record: bool = False,
    latents: Tensor | None = None,
) -> Callable[[], object]:
    """A pass in a block of its own."""

    def run() -> object:
        with ExitStack() as stack:
            attached = stack.enter_context(attach(model, {LAYER: sae}, error_term=error_term))
            if record:
                stack.enter_context(attached.record())
            if latents is not None:
                stack.enter_context(attached.edit(Scale(latents, 2.0)))
            return model(images)

    return run


def record(
    times: dict[str, list[float]], ratios: dict[str, list[float]], options: argparse.Namespace
) -> None:
    """Write the figures."""
    known = {
        "benchmark": "hooks", "implementation": "lightsae", "dtype": "float32", "device": "cpu",
        "sizes": f"vit_small_patch16_224 B={options.batch} d_in=384 d_sae={D_SAE} k={K}",
        "threads": options.threads, "samples": options.rounds,
    }  # fmt: skip
    rows = [
        {**known, "operation": name, "metric": metric, "unit": unit,
         "median": round(statistics.median(found) * factor, 4),
         "low": round(min(found) * factor, 4), "high": round(max(found) * factor, 4)}
        for metric, unit, factor, group in (
            ("time", "ms", 1000, times), ("share of the limit", "x", 1, ratios)
        )
        for name, found in group.items()
    ]  # fmt: skip
    write_rows(options.out, rows)


def table(times: dict[str, list[float]], ratios: dict[str, list[float]]) -> Table:
    """What a person reads."""
    found = Table("pass", "ms", f"of the limit (goal {GOAL})")
    for name, seconds in times.items():
        ratio = f"{statistics.median(ratios[name]):.3f}" if name in ratios else ""
        found.add_row(name, f"{statistics.median(seconds) * 1000:.1f}", ratio)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
