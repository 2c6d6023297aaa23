"""What happens to activation shards and runs when something goes wrong, tried many times.

    python benchmarks/faults.py --tries 50 --small_disk /mnt/small
    python benchmarks/faults.py --tries 50 --only "kill -9 of a sweep"

Every fault comes at a random moment of a real `lightsae extract`, or at a random place of a folder
that it wrote. After the first kind the same command is given again, and the folder must be, bit for
bit, that of a run nothing happened to. After the second every value is read: either all are those
that were written, or an error names the file. Anything else is a failure, and the exit code is 1.

A training run is killed three times, and its autoencoder must be that of a run nothing happened to.
For a full disk give a folder on a small file system of its own, such as a tmpfs of 8 MiB.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from common import RESULTS, write_rows
from fault_kinds.damage import cut, damaged, flip
from fault_kinds.interruptions import (
    disk_full,
    killed,
    killed_and_clock_skewed,
    killed_of_two,
    killed_sweep,
    killed_training,
    killed_while_another_begins,
    two_writers,
)
from fault_kinds.outcomes import RESUMED, TOLD, UNHARMED
from fault_kinds.undisturbed import IMAGES, Bench
from rich.console import Console
from rich.progress import track
from rich.table import Table

KEPT = RESULTS / "faults.csv"
DISK_FULL = "the disk is full"
FAULTS: dict[str, Callable[[Bench], str]] = {
    "kill -9 of an extraction": killed,
    "kill -9, and both clocks off by years": killed_and_clock_skewed,
    "kill -9 of one process of two": killed_of_two,
    "kill -9 of a training run, three times": killed_training,
    "kill -9 of a sweep, five times": killed_sweep,
    "two writers in one folder": two_writers,
    "a writer is killed while another begins": killed_while_another_begins,
    "a shard is removed": lambda bench: damaged(bench, lambda path: path.unlink()),
    "a shard is cut short": lambda bench: damaged(bench, cut(bench.chance)),
    "a bit of a shard is flipped": lambda bench: damaged(bench, flip(bench.chance)),
    "a shard is another run's": lambda bench: damaged(
        bench, lambda path: shutil.copy(bench.scratch / "other" / path.name, path)
    ),
    "a bit of the manifest is flipped": lambda bench: damaged(
        bench, flip(bench.chance), "manifest.json"
    ),
    DISK_FULL: disk_full,
}


def main() -> int:
    options = parse()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), chance, options.small_disk)
        found = {
            name: Counter(try_once(bench) for _ in track(range(options.tries), name))
            for name, try_once in FAULTS.items()
            if name in options.faults
        }
    Console().print(table(found))
    if options.out is not None:
        write_rows(options.out, rows(found, options))
    return 0 if all(set(counts) <= {RESUMED, UNHARMED, TOLD} for counts in found.values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="of each fault, default 20")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--small_disk", type=Path, help="a folder on a small file system")
    parser.add_argument(
        "--out", type=Path, help=f"CSV file, default {KEPT.name} of all faults, none with --only"
    )
    options = parser.parse_args()
    options.faults = [name for name in FAULTS if options.only in name]
    if not options.faults:
        parser.error(f"no fault's name contains {options.only!r}: {', '.join(FAULTS)}")
    if options.small_disk is None and DISK_FULL in options.faults:
        options.faults.remove(DISK_FULL)
        if not options.faults:
            parser.error(f"{DISK_FULL!r} needs --small_disk")
    if options.out is None and not options.only:
        options.out = KEPT
    return options


def table(found: dict[str, Counter[str]]) -> Table:
    shown = Table("fault", "tries", RESUMED, UNHARMED, TOLD, "anything else")
    for name, counts in found.items():
        good = [counts[kind] for kind in (RESUMED, UNHARMED, TOLD)]
        other = [text for text in counts if text not in (RESUMED, UNHARMED, TOLD)]
        shown.add_row(name, str(counts.total()), *map(str, good), "\n".join(other) or "0")
    return shown


def rows(found: dict[str, Counter[str]], options: argparse.Namespace) -> list[dict[str, object]]:
    """One row of the results for each fault and outcome."""
    return [
        {
            "benchmark": "faults",
            "operation": fault,
            "implementation": "lightsae",
            "sizes": f"images={IMAGES} tries={counts.total()} seed={options.seed}",
            "device": "cpu",
            "metric": outcome if outcome in (RESUMED, UNHARMED, TOLD) else "anything else",
            "median": count,
        }
        for fault, counts in found.items()
        for outcome, count in counts.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
