"""Eight small autoencoders stacked, against the same eight one after the other in one process.

    python benchmarks/steps/sweep.py [--rounds 5] [--batch_sizes 2048 256]

A step of each is timed between two batches of one trainer, start-up excluded. c is the step of one
autoencoder by itself (objective, backward, Adam) on a batch in memory, o what the trainer and the
loader add to it: a stack that pays o once and c eight times is 8 (o + c) / (o + 8 c) times faster.
Rounds are interleaved; figures are medians over them.
"""

import argparse
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.sae import AuxK, L1L2Ratio, OffSupportL1, Regularizer, TopK
from lightsae.training import SAEAdam, SAEModule, quieten
from lightsae.training.stacked import Member, StackedModule

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, write_rows

D_IN, D_SAE, K, MEMBERS = 64, 512, 8, 8
WEIGHTS = (1e-4, 3e-4, 1e-3)
GRIDS: dict[str, list[Regularizer | None]] = {
    "no regularizer": [None] * MEMBERS,
    "2 baselines, 3 Reg 1, 3 Reg 2": [
        None, None, *map(OffSupportL1, WEIGHTS), *map(L1L2Ratio, WEIGHTS)
    ],
}  # fmt: skip


now = perf_counter


def main() -> None:
    options = parse()
    global now
    now = process_time if options.cpu_time else perf_counter
    quieten()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = write_shards(Path(scratch) / "shards")
        for batch_size in options.batch_sizes:
            for grid, regularizers in GRIDS.items():
                rounds = [
                    measure(shards, batch_size, regularizers, options.steps)
                    for _ in range(options.rounds)
                ]
                rows += result_rows(
                    grid, batch_size, rounds, "ms of CPU" if options.cpu_time else "ms"
                )
    Console().print(table(rows))
    write_rows(options.out, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80, help="per run, a quarter to warm up")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[2048, 256])
    parser.add_argument(
        "--cpu_time", action="store_true",
        help="of this process, for a machine that others use; take OMP_NUM_THREADS=1",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep.csv", help="CSV file")
    return parser.parse_args()


def write_shards(folder: Path, rows: int = 100_000) -> Path:
    """Sparse combinations of directions, and noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * D_IN, D_IN, generator=generator)
    with ShardWriter(folder, Manifest(d_in=D_IN, dtype="float16")) as writer:
        for part in torch.arange(rows).split(20_000):
            shape = len(part), len(directions)
            strengths = torch.randn(shape, generator=generator).relu()
            strengths *= torch.rand(shape, generator=generator) < 0.05
            noise = torch.randn(len(part), D_IN, generator=generator)
            writer.write(strengths @ directions + 0.1 * noise, sample_index=part)
    return folder


def make_module(regularizer: Regularizer | None) -> SAEModule:
    return SAEModule(
        D_SAE, TopK(K), regularizer, AuxK(k_aux=64, dead_after=5000), d_in=D_IN,
        optimizer=lambda parameters: SAEAdam(parameters, lr=1e-3),
    )  # fmt: skip


class Clock(Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Look at the clock."""
        self.ends.append(now())


def under_trainer(module: LightningModule, shards: Path, batch_size: int, steps: int) -> float:
    """Median milliseconds of a step."""
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, limit_val_batches=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, ActivationDataModule(str(shards), batch_size=batch_size))
    return middle(clock.ends)


def by_itself(module: SAEModule, shards: Path, batch_size: int, steps: int) -> float:
    """Median milliseconds of a step without trainer and loader."""
    data = ActivationDataModule(str(shards), batch_size=batch_size)
    data.setup("fit")
    module.sae.initialize_(data.training_sample(10_000))
    optimizer: Any = module.configure_optimizers()
    batch = next(iter(data.train_dataloader()))
    ends = []
    for _ in range(steps):
        optimizer.zero_grad()
        module.objective_of(batch).loss.backward()
        optimizer.step()
        ends.append(now())
    return middle(ends)


def middle(ends: list[float]) -> float:
    """Median milliseconds between moments, after the first quarter."""
    warm = ends[len(ends) // 4 :]
    return 1e3 * median(b - a for a, b in pairwise(warm))


def measure(
    shards: Path, batch_size: int, regularizers: list[Regularizer | None], steps: int
) -> dict[str, float]:
    """One round."""
    sizes = shards, batch_size, steps
    apart = [under_trainer(make_module(each), *sizes) for each in regularizers]
    members = [
        Member.made(str(n), n, lambda each=each: make_module(each))
        for n, each in enumerate(regularizers)
    ]
    stacked = under_trainer(StackedModule(members), *sizes)
    alone = [by_itself(make_module(each), *sizes) for each in regularizers]
    o, c = (sum(apart) - sum(alone)) / MEMBERS, sum(alone) / MEMBERS
    limit = MEMBERS * (o + c) / (o + MEMBERS * c)
    speedup = sum(apart) / stacked
    return {
        "one after the other": sum(apart), "stacked": stacked, "o": o, "c": c,
        "limit": limit, "speedup": speedup, "share of the limit": speedup / limit,
    }  # fmt: skip


def result_rows(
    grid: str, batch_size: int, rounds: list[dict[str, float]], unit: str
) -> list[dict[str, str | int | float]]:
    return [
        {
            "benchmark": "sweep",
            "operation": grid,
            "implementation": "lightsae",
            "sizes": f"members={MEMBERS} B={batch_size} d_in={D_IN} d_sae={D_SAE} k={K}",
            "dtype": "float32",
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "metric": metric,
            "unit": "times" if metric in ("limit", "speedup", "share of the limit") else unit,
            "median": round(median(each[metric] for each in rounds), 3),
            "low": round(min(each[metric] for each in rounds), 3),
            "high": round(max(each[metric] for each in rounds), 3),
            "samples": len(rounds),
        }
        for metric in rounds[0]
    ]


def table(rows: list[dict[str, str | int | float]]) -> Table:
    shown = Table("grid", "sizes", "metric", "median", "low", "high")
    for row in rows:
        shown.add_row(*(str(row[key]) for key in ("operation", "sizes", "metric", "median", "low",
                                                  "high")))  # fmt: skip
    return shown


if __name__ == "__main__":
    main()
