"""What every benchmark records: the machine, the versions and rows of one CSV schema."""

import csv
import importlib.metadata
import io
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
# What gpu.py leaves in a folder.
GPU_TESTS, GPU_FAILURES, GPU_SUMMARY = "gpu_tests.csv", "gpu_failures.txt", "gpu_summary.txt"
GPU_KERNELS, GPU_MEMORY = "kernels_cuda.csv", "step_memory_cuda.txt"
GPU_STEPS = {size: f"train_step_cuda_{size}.csv" for size in ("paper", "large")}

COLUMNS = (
    "date",
    "benchmark",
    "operation",
    "implementation",
    "implementation_version",
    "sizes",
    "dtype",
    "device",
    "threads",
    "metric",
    "unit",
    "median",
    "low",
    "high",
    "samples",
    "cpu",
    "cores",
    "memory_gib",
    "gpu",
    "system",
    "python",
    "torch",
    "triton",
    "lightning",
    "numpy",
    "h5py",
    "lightsae",
    "commit",
    "gpu_tests",
)

Row = Mapping[str, str | int | float]


@cache
def machine() -> dict[str, str | int | float]:
    """Columns that describe the machine: cpu, cores, memory_gib, gpu, system."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * page / 2**30, 1),
        "gpu": _gpu_name(),
        "system": f"{platform.system()} {platform.release()}",
    }


@cache
def versions() -> dict[str, str]:
    """Columns with the versions of this environment; empty where a package is not installed."""
    names = ("torch", "triton", "lightning", "numpy", "h5py", "lightsae")
    installed = {name: _version(name) for name in names}
    return {"python": platform.python_version(), **installed, "commit": _commit()}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a CSV file with `COLUMNS`, in place of an older one.

    A row gives benchmark, implementation, sizes ("B=2048 d_in=384"), metric, unit and median, and
    whatever else it knows; date, machine and versions are filled in where the row is silent.
    `low` and `high` are the extremes over `samples` repetitions, or the 20th and 80th percentile
    where the metric is a p50. What was measured on a GPU tells in `gpu_tests` what the tests said
    that ran before it. Older files have fewer columns.

    Args:
        path: The file; its folder is made if it is not there.
        rows: Measurements, one metric each.

    Raises:
        ValueError: If a row has a column that is not in the schema.
    """
    known = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **machine(), **versions()}
    tested = {"gpu_tests": gpu_tests(path.parent)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {**known, **(tested if row.get("device") == "cuda" else {}), **row} for row in rows
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text.getvalue())
    temporary.replace(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of such a file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def gpu_tests(folder: Path) -> str:
    """What the GPU tests said whose outcomes are in a folder: "green", or what was not."""
    rows = read_rows(folder / GPU_TESTS)
    if not rows or any(row["commit"] != versions()["commit"] for row in rows):
        return "not run"
    counts = Counter(row["metric"] for row in rows)
    wrong = {"red": counts["failed"] + counts["error"], "not reached": counts["not reached"]}
    if any(wrong.values()):
        return ", ".join(f"{count} {what}" for what, count in wrong.items() if count)
    return "green" if counts["passed"] else "none ran"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _gpu_name() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_name())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """Commit of the checkout, with a + if tracked source differs from it."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here.parent, "status", "--porcelain", "-uno", "--", "lightsae", "kernels")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
