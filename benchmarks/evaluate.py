"""What an evaluation costs beside a pass that only encodes.

    python benchmarks/evaluate.py                                # 50,000 rows, sizes as below
    python benchmarks/evaluate.py --rows 5000 --rounds 1         # to see that it runs

Random sparse combinations of directions are written to shards with 100 classes, and so is a random
projection of them as the embeddings of another model. Each round runs, one after the other, a pass
over the test split that only encodes, `evaluate` with everything but probes, and the test of
`lightsae test`, with its losses: of a run without a regularizer, and of one with Reg 2, whose value
takes every pre-activation in float32. Each opens the embeddings anew. Ratios are of one round, of
seconds on the clock and of seconds of the processors, which other work disturbs less.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

import torch
from common import RESULTS, write_rows
from lightning.pytorch import Trainer
from rich.console import Console

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.evaluation import EvaluationOptions, evaluate
from lightsae.evaluation.trainer_callback import EvaluationCallback
from lightsae.runs.log_filter import quieten
from lightsae.sae import L1L2Ratio, Regularizer, SparseAutoencoder, TopK
from lightsae.training import SAEModule

SIZES = {"rows": 50_000, "d_in": 768, "d_sae": 8192, "k": 32, "d_e": 768, "batch": 2048}
CLASSES, TRAIN_ROWS, GOAL = 100, 4096, 2.0


class Times(NamedTuple):
    """Seconds of one pass.

    Attributes:
        clock: On the clock.
        processors: Of all processors.
    """

    clock: float
    processors: float


def main() -> None:
    options = parse()
    sizes = {name: getattr(options, name) for name in SIZES}
    with tempfile.TemporaryDirectory() as scratch:
        passes = prepare(Path(scratch), sizes)
        rounds: dict[str, list[Times]] = {name: [] for name in passes}
        for _ in range(options.rounds):
            for name, run in passes.items():
                clock, processors = perf_counter(), process_time()
                run()
                times = Times(perf_counter() - clock, process_time() - processors)
                rounds[name].append(times)
    report(sizes, rounds, options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluate.csv")
    return parser.parse_args()


def prepare(folder: Path, sizes: dict[str, int]) -> dict[str, Callable[[], object]]:
    """Shards of both models, and the passes over them."""
    quieten()
    d_in, d_sae, batch = (sizes[name] for name in ("d_in", "d_sae", "batch"))
    write_shards(folder, sizes)
    share = sizes["rows"] / (sizes["rows"] + TRAIN_ROWS)
    data = ActivationDataModule(
        str(folder / "x"), batch_size=batch, val_fraction=0, test_fraction=share
    )
    data.setup("test")
    torch.manual_seed(0)
    sae = SparseAutoencoder(d_in, d_sae, TopK(sizes["k"]))
    sae.initialize_(data.training_sample(TRAIN_ROWS))
    embeddings = [str(folder / "e")]

    def tested(regularizer: Regularizer | None) -> None:
        module = SAEModule(d_sae, TopK(sizes["k"]), regularizer=regularizer, d_in=d_in)
        module.sae = sae
        callback = EvaluationCallback(folder, EvaluationOptions(embeddings=embeddings))
        trainer = Trainer(
            accelerator="cpu", devices=1, logger=False, callbacks=[callback],
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.test(module, data, verbose=False)

    return {
        "encode": lambda: encode_only(sae, data),
        "evaluate": lambda: evaluate(sae, data, embeddings, show_progress=False),
        "lightsae test": lambda: tested(None),
        "lightsae test, Reg 2": lambda: tested(L1L2Ratio(weight=0.01)),
    }


def write_shards(folder: Path, sizes: dict[str, int]) -> None:
    """Rows with a class each, and their projections in another order."""
    rows, d_in, d_e = sizes["rows"] + TRAIN_ROWS, sizes["d_in"], sizes["d_e"]
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(1024, d_in, generator=generator)
    projection = torch.randn(d_in, d_e, generator=generator)
    order = torch.randperm(rows, generator=generator)
    first = ShardWriter(folder / "x", Manifest(d_in, "float16", has_labels=True, tokens="class"))
    other = ShardWriter(folder / "e", Manifest(d_e, "float16", tokens="class"))
    with first, other:
        for part in order.split(4096):
            chosen = torch.randint(1024, (len(part), 16), generator=generator)
            x = directions[chosen].sum(1) / 4 + 0.1 * torch.randn(
                len(part), d_in, generator=generator
            )
            first.write(x, part, label=chosen[:, 0] % CLASSES)
            back = torch.arange(len(part) - 1, -1, -1)
            other.write((x @ projection)[back] / d_in**0.5, part[back])


@torch.no_grad()
def encode_only(sae: SparseAutoencoder, data: ActivationDataModule) -> None:
    for batch in data.split_dataloader("test"):
        sae.encode(batch.activations)


def report(sizes: dict[str, int], rounds: dict[str, list[Times]], out: Path) -> None:
    console = Console()
    told = " ".join(f"{name}={size}" for name, size in sizes.items())
    console.print(told)
    rows = []
    for name, times in rounds.items():
        known = {
            "benchmark": "evaluate", "implementation": "lightsae", "operation": name,
            "sizes": told, "dtype": "float32", "device": "cpu", "threads": torch.get_num_threads(),
            "samples": len(times),
        }  # fmt: skip
        for kind in Times._fields:
            seconds = [getattr(each, kind) for each in times]
            base = [getattr(each, kind) for each in rounds["encode"]]
            ratios = [pair[0] / pair[1] for pair in zip(seconds, base, strict=True)]
            goal = "" if name == "encode" else f" (goal: at most {GOAL})"
            console.print(
                f"{name}, {kind}: {median(seconds):.2f} s, {median(ratios):.2f} of encode{goal}"
            )
            for metric, unit, values in ((kind, "s", seconds), (f"{kind} of encode", "", ratios)):
                figures = {"median": median(values), "low": min(values), "high": max(values)}
                figures = {key: f"{value:.4g}" for key, value in figures.items()}
                rows.append({**known, "metric": metric, "unit": unit, **figures})
    write_rows(out, rows)


if __name__ == "__main__":
    main()
