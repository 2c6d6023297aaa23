"""Time and memory of a training step: this package, stock torch and four other libraries.

    python benchmarks/peers/setup.py     # once: an environment per library
    python benchmarks/steps/train_step.py
    python benchmarks/steps/train_step.py --sweep d_sae 2048 8192 32768
    python benchmarks/steps/train_step.py --device cuda --batch 16384 --d_sae 65536 --k 64

A step is forward, loss, backward and Adam. Every measurement is a process of its own; the rounds
visit all implementations in turn. NOTES.md says what each one runs.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, write_rows
from peers.implementations import IMPLEMENTATIONS
from peers.process import Measured, interpreter, run
from peers.setup import FOLDER
from peers.table import csv_rows, missing_rows, remarks, table

SIZES = {"batch": 2048, "d_in": 384, "d_sae": 6144, "k": 32}
COUNTS = {"threads": 2, "rounds": 5, "warmup": 3, "steps": 20}
MOST_OF_BUDGET = 1 / 3  # for one process


def main() -> int:
    options = parse()
    console = Console()
    end = time.monotonic() + options.budget
    rows: list[dict] = []
    failed = False
    for point in points(options):
        found, failures = measure(point, console, end, rows)
        rows += found
        failed |= bool(failures)
    console.print(f"written to {options.out}", soft_wrap=True, highlight=False)
    return 1 if failed else 0


def points(options: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """The options at every size that is asked for."""
    name, values = options.sweep or ("k", [options.k])
    for value in values:
        point = argparse.Namespace(**vars(options) | {name: value})
        point.sizes = {size: getattr(point, size) for size in SIZES}
        yield point


def available(name: str, options: argparse.Namespace) -> bool:
    """Whether there is a Python for an implementation; a rehearsal has this one for all."""
    python = interpreter(name, options)
    return python == Path(sys.executable) if options.rehearse else python.exists()


def measure(
    options: argparse.Namespace, console: Console, end: float, before: list[dict]
) -> tuple[list[dict], dict[str, str]]:
    """Time every implementation in rounds, writing rows as they come: all rows, and what failed."""
    wanted = options.only or list(IMPLEMENTATIONS[options.device])
    missing = [name for name in wanted if not available(name, options)]
    results = {name: Measured() for name in wanted if name not in missing}
    failures: dict[str, str] = {}
    for number in range(options.rounds):
        for names in processes([name for name in results if name not in failures], options):
            if (left := end - time.monotonic()) <= 0:
                break
            label = f"round {number + 1} of {options.rounds}: {', '.join(names)}"
            console.print(label, style="dim")
            try:
                reports, elsewhere = run(names, options, min(left, options.budget * MOST_OF_BUDGET))
            except TimeoutError as error:
                failures |= {name: str(error) for name in names if not results[name].step_ms}
            except RuntimeError as error:
                failures |= dict.fromkeys(names, str(error))
            else:
                for name, report in zip(names, reports, strict=True):
                    results[name].add(report, elsewhere)
            write_rows(options.out, [*before, *rows_of(results, missing, failures, options)])
    finished = {name: one for name, one in results.items() if one.step_ms}
    late = results.keys() - finished.keys() - failures.keys()
    failures |= dict.fromkeys(late, f"no time left of --budget {options.budget:g}")
    rows = rows_of(results, missing, failures, options)
    write_rows(options.out, [*before, *rows])
    wide = Console(width=max(console.width, 180))
    wide.print(table(finished, options))
    for line in remarks(finished, missing, failures, options):
        wide.print(line, soft_wrap=True, highlight=False)
    return rows, failures


def processes(names: list[str], options: argparse.Namespace) -> list[list[str]]:
    """Which implementations share a process: none, unless nothing is timed."""
    return [names] if options.rehearse else [[name] for name in names]


def rows_of(
    results: dict[str, Measured],
    missing: list[str],
    failures: dict[str, str],
    options: argparse.Namespace,
) -> list[dict]:
    reasons = dict.fromkeys(missing, "its environment is not there") | failures
    unmeasured = {
        name: why
        for name, why in reasons.items()
        if name not in results or not results[name].step_ms
    }
    return [*csv_rows(results, options), *missing_rows(unmeasured, options)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (SIZES | COUNTS).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--sweep", nargs="+", metavar=("SIZE", "VALUE"),
                        help="one of the sizes and the values that it takes in turn")  # fmt: skip
    parser.add_argument("--budget", type=float, default=math.inf,
                        help="seconds after which it ends")  # fmt: skip
    parser.add_argument("--device", choices=IMPLEMENTATIONS, default="cpu", help="default cpu")
    parser.add_argument("--rehearse", action="store_true",
                        help="--device cuda without a GPU: no time is a speed")  # fmt: skip
    for device, known in IMPLEMENTATIONS.items():
        names = parser.epilog or ""
        parser.epilog = f"{names}on {device}: {', '.join(known)}. "
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of those below")
    parser.add_argument("--peers", type=Path, default=FOLDER, help=f"default {FOLDER}")
    parser.add_argument("--out", type=Path,
                        help="CSV, default train_step_DEVICE[_SWEPT].csv in results")  # fmt: skip
    options = parser.parse_args()
    options.sweep = swept(parser, options.sweep)
    for name in options.only or ():
        if name not in IMPLEMENTATIONS[options.device]:
            parser.error(f"--only {name}: not one of {', '.join(IMPLEMENTATIONS[options.device])}")
    if options.rehearse and (options.device != "cuda" or options.out is None):
        parser.error("--rehearse needs --device cuda and --out")
    options.runs_on = "cpu" if options.rehearse else options.device
    if options.runs_on == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use")
    swept_size = "" if options.sweep is None else f"_{options.sweep[0]}"
    options.out = options.out or RESULTS / f"train_step_{options.device}{swept_size}.csv"
    for name in (*SIZES, *COUNTS):
        smallest = 0 if name == "warmup" else 1
        if getattr(options, name) < smallest:
            parser.error(f"--{name} must be at least {smallest}")
    for point in points(options):
        if point.k > point.d_sae:
            parser.error(f"--k {point.k} is larger than --d_sae {point.d_sae}")
    return options


def swept(parser: argparse.ArgumentParser, words: list[str] | None) -> tuple[str, list[int]] | None:
    """The size that changes, and its values."""
    if words is None:
        return None
    name, *values = words
    if name not in SIZES:
        parser.error(f"--sweep {name}: not one of {', '.join(SIZES)}")
    if not values or not all(value.isdecimal() and int(value) > 0 for value in values):
        parser.error(f"--sweep {name}: expected sizes of at least 1, got {values}")
    return name, [int(value) for value in values]


if __name__ == "__main__":
    sys.exit(main())
