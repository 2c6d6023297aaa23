"""Reading shards: batches, shuffled and in stored order, against raw reading and naive loaders.

Random rows are gathered by a sorted fancy index, batch by batch; single rows are read one by one;
an IterableDataset yields them in stored order to a DataLoader.

    python benchmarks/data/shards.py

saev's loader reads the same number of rows of its own format, shuffled, where
`python benchmarks/peers/setup.py saev` has made its environment; its rows are float32 and are
counted as what they are in float16, so that ratios are of rows.

Batches have every hash checked and every value scanned for NaN. Raw reading goes through
the same files with one 4 MiB buffer. All reads come from the page cache; the cases take turns.
Memory is the peak of a process of its own, over what it held before it opened the shards, and what
the processes that read for it hold beside the memory they share with it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, IterableDataset

from lightsae.activations import ActivationDataModule, ActivationLoader, Manifest, ShardWriter

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, write_rows

CLASSES = 10
SAEV = "saev 0.1.0, shuffled"


def main() -> int:
    options = parse()
    if options.memory_of is not None:
        print(memory_over_start(options))
        return 0
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch) / "shards"
        write(folder, options)
        with ExitStack() as stack:
            results = measure(folder, options, saev_loader(Path(scratch), options, stack))
        results["memory over start"] = ("MiB", [memory_in_a_process(folder, options)])
        results["chi-square per degree"] = ("", chi_squares(folder, options))
    write_rows(options.out, rows(results, options))
    Console().print(table(results, options))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = {"rows": 204_800, "d_in": 1024, "batch": 4096, "buffer": 20_480}
    for name, default in {**counts, "rounds": 5, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    peers = Path(".venv-peers")
    parser.add_argument("--peers", type=Path, default=peers, help=f"default {peers}")
    parser.add_argument("--scratch", type=Path, help="folder for the shards")
    parser.add_argument("--out", type=Path, default=RESULTS / "shards.csv", help="CSV file")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def write(folder: Path, options: argparse.Namespace) -> None:
    """Rows whose labels come in random order, as extraction leaves them."""
    manifest = Manifest(d_in=options.d_in, dtype="float16", has_labels=True)
    label = torch.from_numpy(np.random.default_rng(0).permutation(options.rows) % CLASSES)
    with ShardWriter(folder, manifest, rows_per_shard=65_536) as writer:
        for part in torch.arange(options.rows).split(4096):
            writer.write(torch.randn(len(part), options.d_in).half(), part, label=label[part])


def loader_of(folder: Path, options: argparse.Namespace, shuffle: bool = True) -> ActivationLoader:
    data = ActivationDataModule(
        str(folder), options.batch, 0.0, 0.0, buffer_rows=options.buffer, dtype="stored"
    )
    return data.train_dataloader() if shuffle else data.predict_dataloader()


def saev_loader(
    scratch: Path, options: argparse.Namespace, stack: ExitStack
) -> Callable[[], int] | None:
    """Reads an epoch of a quarter of the rows with saev, in its own environment, if it has one."""
    python = options.peers / "saev" / "bin" / "python"
    if not python.exists():
        return None
    script = Path(__file__).parents[1] / "peers" / "saev_loader.py"
    sizes = {"rows": options.rows // 4, "d_in": options.d_in, "batch": options.batch}
    words = [str(python), str(script), str(scratch / "saev")]
    words += [f"--{name}={size}" for name, size in sizes.items()]
    process = stack.enter_context(
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None and stdout is not None
    if stdout.readline() != "ready\n":
        raise RuntimeError(f"{script} did not begin")

    def epoch() -> int:
        stdin.write("\n")
        return int(stdout.readline()) * options.d_in * 2

    return epoch


def measure(
    folder: Path, options: argparse.Namespace, saev: Callable[[], int] | None
) -> dict[str, tuple[str, list[float]]]:
    """GB/s of each case, one value per round."""
    shuffled, stored = loader_of(folder, options), loader_of(folder, options, shuffle=False)
    files = sorted(folder.glob("shard-*.h5"))
    cases: dict[str, Callable[[], int]] = {
        "raw sequential": lambda: raw(files),
        "shuffled batches": lambda: sum(batch.activations.nbytes for batch in shuffled),
        "stored order": lambda: sum(batch.activations.nbytes for batch in stored),
        "random rows": lambda: random_rows(folder, options.batch),
        "single rows": lambda: single_rows(files, options.batch),
        "IterableDataset": lambda: iterable_rows(files[0], options.batch),
    }
    if saev is not None:
        cases[SAEV] = saev
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(options.rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            size = case()
            if number:
                speeds[name].append(size / (time.perf_counter() - start) / 1e9)
    results = {name: ("GB/s", values) for name, values in speeds.items()}
    for ours, others in (
        ("shuffled batches", ("raw sequential", "random rows", "single rows", SAEV)),
        ("stored order", ("raw sequential", "IterableDataset")),
    ):
        for name in (name for name in others if name in speeds):
            pairs = zip(speeds[ours], speeds[name], strict=True)
            results[f"{ours} / {name}"] = ("x", [one / other for one, other in pairs])
    return results


def raw(files: list[Path]) -> int:
    """Read files from start to end into one buffer."""
    buffer = bytearray(4 << 20)
    total = 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def random_rows(folder: Path, count: int) -> int:
    """Gather one batch of rows by fancy index, as a naive loader does; h5py wants them sorted."""
    shards = Manifest.load(folder).shards
    ends = np.cumsum([entry.rows for entry in shards])
    rows = np.sort(np.random.default_rng(0).choice(ends[-1], count, replace=False))
    size = 0
    parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
    for entry, end, part in zip(shards, ends, parts, strict=True):
        with h5py.File(folder / entry.name) as file:
            size += file["activations"][part - (end - entry.rows)].nbytes
    return size


def single_rows(files: list[Path], count: int) -> int:
    """Read rows one by one from open files, as a map-style dataset behind a shuffling sampler."""
    with ExitStack() as stack:
        rows = [stack.enter_context(h5py.File(path))["activations"] for path in files]
        ends = np.cumsum([len(part) for part in rows])
        size = 0
        for row in np.random.default_rng(0).choice(ends[-1], count, replace=False):
            part = int(np.searchsorted(ends, row, side="right"))
            size += rows[part][row - (ends[part - 1] if part else 0)].nbytes
    return size


class Rows(IterableDataset):
    """Rows of a file one after the other, as a first attempt reads them."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield `count` rows from the start."""
        with h5py.File(self.path) as file:
            for row in range(min(self.count, len(file["activations"]))):
                yield file["activations"][row]


def iterable_rows(path: Path, count: int) -> int:
    """One batch of them."""
    return sum(batch.nbytes for batch in DataLoader(Rows(path, count), batch_size=count))


def chi_squares(folder: Path, options: argparse.Namespace) -> list[float]:
    """Of each batch: chi-square of its labels over its degrees of freedom; 1 when random."""
    found = []
    for batch in loader_of(folder, options):
        assert batch.label is not None
        counts = torch.bincount(batch.label, minlength=CLASSES).double()
        expected = len(batch.label) / CLASSES
        found.append(float(((counts - expected) ** 2 / expected).sum() / (CLASSES - 1)))
    return found


def memory_in_a_process(folder: Path, options: argparse.Namespace) -> float:
    words = [f"--{name}={getattr(options, name)}" for name in ("rows", "d_in", "batch", "buffer")]
    command = [sys.executable, __file__, f"--memory-of={folder}", *words]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_over_start(options: argparse.Namespace) -> float:
    """MiB that two epochs need at their peak."""
    before = status("VmRSS")
    loader = loader_of(options.memory_of, options)
    for _ in range(2):
        for batch in loader:
            del batch
    readers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    own = sum(status("VmHWM", pid) - status("RssShmem", pid) for pid in readers)
    return (status("VmHWM") - before + own) / 1024


def status(key: str, process: str = "self") -> int:
    """KiB of a line of /proc/PROCESS/status."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def rows(results: dict[str, tuple[str, list[float]]], options: argparse.Namespace) -> list[dict]:
    sizes = " ".join(
        f"{name}={getattr(options, name)}" for name in ("rows", "d_in", "batch", "buffer")
    )
    shared = {"benchmark": "shards", "implementation": "lightsae", "sizes": sizes}
    shared |= {"dtype": "float16", "device": "cpu", "threads": options.threads}
    return [
        {**shared, "metric": name, "unit": unit, "median": f"{statistics.median(values):.4g}",
         "low": f"{min(values):.4g}", "high": f"{max(values):.4g}", "samples": len(values)}
        for name, (unit, values) in results.items()
    ]  # fmt: skip


def table(results: dict[str, tuple[str, list[float]]], options: argparse.Namespace) -> Table:
    load = os.getloadavg()[0]
    found = Table(title=f"{options.rows} x {options.d_in} float16, load average {load:.1f}")
    for name in ("metric", "unit", "median", "low", "high", "goal"):
        found.add_column(name, justify="left" if name == "metric" else "right")
    buffer = options.buffer * options.d_in * 2 / 2**20
    goals = {
        "shuffled batches / raw sequential": ">= 0.25",
        "stored order / raw sequential": ">= 0.5",
        "shuffled batches / random rows": ">= 100",
        "memory over start": f"< {buffer + 300:.0f}",
        "chi-square per degree": "about 1",
    }
    for name, (unit, values) in results.items():
        figures = [f"{pick(values):.3g}" for pick in (statistics.median, min, max)]
        found.add_row(name, unit, *figures, goals.get(name, ""))
    return found


if __name__ == "__main__":
    sys.exit(main())
