"""Time and memory of a training step: this package, stock torch and four other libraries.

    python benchmarks/peers/setup.py     # once: an environment per library
    python benchmarks/train_step.py
    python benchmarks/train_step.py --device cuda --batch 16384 --d_in 1024 --d_sae 65536 --k 64

A step is forward, loss, backward and Adam. Every measurement is a process of its own; the rounds
visit all implementations in turn. NOTES.md says what each one runs.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from common import RESULTS, write_rows
from peers.implementations import IMPLEMENTATIONS
from peers.process import Measured, interpreter, run
from peers.setup import FOLDER
from peers.table import csv_rows, remarks, table
from rich.console import Console

SIZES = {"batch": 2048, "d_in": 384, "d_sae": 6144, "k": 32}
COUNTS = {"threads": 2, "rounds": 5, "warmup": 3, "steps": 20}


def main() -> int:
    options = parse()
    console = Console()
    wide = Console(width=max(console.width, 150))
    wanted = options.only or list(IMPLEMENTATIONS[options.device])
    missing = [name for name in wanted if not interpreter(name, options).exists()]
    results = {name: Measured() for name in wanted if name not in missing}
    failures: dict[str, str] = {}
    end = time.monotonic() + options.budget
    for number in range(options.rounds):
        if time.monotonic() > end:
            break
        for name in [name for name in results if name not in failures]:
            if time.monotonic() > end and not number:
                failures[name] = f"no time left of --budget {options.budget:g}"
                continue
            console.print(f"round {number + 1} of {options.rounds}: {name}", style="dim")
            try:
                results[name].add(*run(name, options))
            except RuntimeError as error:
                failures[name] = str(error)
        finished = {name: one for name, one in results.items() if one.step_ms}
        write_rows(options.out, csv_rows(finished, options))
    wide.print(table(finished, options))
    for line in remarks(finished, missing, failures, options):
        wide.print(line, soft_wrap=True, highlight=False)
    console.print(f"written to {options.out}", soft_wrap=True, highlight=False)
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (SIZES | COUNTS).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--budget", type=float, default=math.inf,
                        help="seconds after which nothing more is begun")  # fmt: skip
    parser.add_argument("--device", choices=IMPLEMENTATIONS, default="cpu", help="default cpu")
    for device, known in IMPLEMENTATIONS.items():
        names = parser.epilog or ""
        parser.epilog = f"{names}on {device}: {', '.join(known)}. "
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of those below")
    parser.add_argument("--peers", type=Path, default=FOLDER, help=f"default {FOLDER}")
    parser.add_argument("--out", type=Path,
                        help="CSV, default benchmarks/results/train_step_DEVICE.csv")  # fmt: skip
    options = parser.parse_args()
    options.out = options.out or RESULTS / f"train_step_{options.device}.csv"
    for name in options.only or ():
        if name not in IMPLEMENTATIONS[options.device]:
            parser.error(f"--only {name}: not one of {', '.join(IMPLEMENTATIONS[options.device])}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use")
    for name in (*SIZES, *COUNTS):
        smallest = 0 if name == "warmup" else 1
        if getattr(options, name) < smallest:
            parser.error(f"--{name} must be at least {smallest}")
    if options.k > options.d_sae:
        parser.error(f"--k {options.k} is larger than --d_sae {options.d_sae}")
    options.sizes = {name: getattr(options, name) for name in SIZES}
    return options


if __name__ == "__main__":
    sys.exit(main())
