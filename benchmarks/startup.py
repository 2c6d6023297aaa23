"""How long commands and imports take to start, and how much memory they then hold.

    python benchmarks/startup.py --rounds 5

Each is a process of its own, in rounds, the first of which warms the page cache and is not counted.
Processor time (user and system) suffers least from other work on the machine; the goals are for
wall time on two quiet cores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import RESULTS, write_rows
from rich.console import Console
from rich.table import Table

from lightsae.activations import Manifest, ShardWriter

ROWS, D_IN = 20_000, 256
_LAUNCH = """
import os, subprocess, sys, time
begin = time.perf_counter()
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
process = subprocess.Popen(sys.argv[1:], **quiet)
_, status, used = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
wall = time.perf_counter() - begin
print(process.returncode, wall, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


class Start(NamedTuple):
    """One process: seconds and MiB."""

    wall: float
    processor: float
    memory: float


class Case(NamedTuple):
    """What is started, and the most seconds it may take."""

    words: list[str]
    goal: float | None


def cases(shards: str) -> dict[str, Case]:
    command = ["-m", "lightsae"]
    return {
        "--help": Case([*command, "--help"], None),
        "shards info": Case([*command, "shards", "info", shards], 1.5),
        "shards verify": Case([*command, "shards", "verify", shards], None),
        "extract --help": Case([*command, "extract", "--help"], 2.0),
        "fit --help": Case([*command, "fit", "--help"], 3.5),
        "fit --print_config": Case([*command, "fit", "--print_config"], None),
        "import lightsae.activations": Case(["-c", "import lightsae.activations"], None),
        "import lightsae.sae": Case(["-c", "import lightsae.sae"], None),
        "import lightsae.metrics": Case(["-c", "import lightsae.metrics"], None),
        "import torch": Case(["-c", "import torch"], None),
        "import lightning.pytorch": Case(["-c", "import lightning.pytorch"], None),
    }


def measure(words: list[str]) -> Start:
    """Start a process from a small one, whose memory counts as its own, and wait for its end."""
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCH, sys.executable, *words],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    status, wall, processor, kib = map(float, done.stdout.split())
    if status:
        raise RuntimeError(f"{' '.join(words)}: exit status {status:.0f}")
    return Start(wall, processor, kib / 1024)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        shards = make_shards(Path(scratch) / "shards")
        found = cases(shards)
        measured: dict[str, list[Start]] = {name: [] for name in found}
        for number in range(options.rounds + 1):
            for name, case in found.items():
                start = measure(case.words)
                if number:
                    measured[name].append(start)
    Console().print(table(found, measured))
    write_rows(options.out, [row for name in found for row in rows(name, measured[name])])


def make_shards(folder: Path) -> str:
    """A folder with labels, as a user would look at it."""
    random = np.random.default_rng(0)
    manifest = Manifest(d_in=D_IN, dtype="float16", has_labels=True)
    with ShardWriter(folder, manifest) as writer:
        values = random.standard_normal((ROWS, D_IN), dtype=np.float32)
        writer.write(values, np.arange(ROWS), label=random.integers(0, 10, ROWS))
    return str(folder)


def table(found: dict[str, Case], measured: dict[str, list[Start]]) -> Table:
    shown = Table("", "wall, s", "processor, s", "most memory, MiB", "goal, s")
    for name, starts in measured.items():
        wall, processor, memory = map(statistics.median, zip(*starts, strict=True))
        goal = found[name].goal
        shown.add_row(
            name,
            f"{wall:.2f}",
            f"{processor:.2f}",
            f"{memory:.0f}",
            "" if goal is None else f"{goal}",
        )
    return shown


def rows(name: str, starts: list[Start]) -> list[dict[str, str | int | float]]:
    """Three rows of the results."""
    units = {"wall time": "s", "processor time": "s", "peak resident size": "MiB"}
    columns = zip(*starts, strict=True)
    return [
        {
            "benchmark": "startup",
            "operation": name,
            "implementation": "lightsae",
            "sizes": f"rows={ROWS} d_in={D_IN}",
            "device": "cpu",
            "metric": metric,
            "unit": unit,
            "median": round(statistics.median(column), 3),
            "low": round(min(column), 3),
            "high": round(max(column), 3),
            "samples": len(column),
        }
        for (metric, unit), column in zip(units.items(), columns, strict=True)
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
