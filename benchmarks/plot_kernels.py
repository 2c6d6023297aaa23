"""Draw the CSV files of kernels.py: time over the bare product, by implementation and by size.

    python benchmarks/plot_kernels.py benchmarks/results/kernels_*.csv [--folder FOLDER]

Beside each file, or in the folder: <name>_implementations.png, and <name>_sweep.png if it has one.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from operations.names import OURS, STOCK_COMPILED


class Point(NamedTuple):
    """A median with the 20th and 80th percentile, relative to the bare product."""

    operation: str
    implementation: str
    median: float
    low: float
    high: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="CSV files of kernels.py")
    parser.add_argument("--folder", type=Path, help="default: beside each file")
    options = parser.parse_args()
    for path in options.files:
        if not path.is_file():
            parser.error(f"{path} does not exist")
        rows = read(path)
        if not any(row["metric"] == "time_over_product" for row in rows):
            parser.error(f"{path} has no row with metric time_over_product: not from kernels.py?")
        folder = options.folder or path.parent
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in (("implementations", implementations(rows)), ("sweep", sweep(rows))):
            if figure is not None:
                out = folder / f"{path.stem}_{name}.png"
                figure.savefig(out, dpi=120)
                print(out)
    return 0


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["benchmark"] == "kernels"]


def points(rows: list[dict[str, str]]) -> dict[tuple[str, str], list[Point]]:
    """Points by sizes and dtype."""
    found = defaultdict(list)
    for row in rows:
        if row["metric"] == "time_over_product" and row["operation"] not in ("product", "copy"):
            figures = (float(row[name]) for name in ("median", "low", "high"))
            point = Point(row["operation"], row["implementation"], *figures)
            found[row["sizes"], row["dtype"]].append(point)
    return found


def where(rows: list[dict[str, str]]) -> str:
    """The machine, or that there was none."""
    first = rows[0]
    return first["gpu"] or "interpreted on the CPU: not speeds"


def implementations(rows: list[dict[str, str]]) -> plt.Figure | None:
    """A panel of bars for every size at which all implementations were asked for."""
    asked = {(r["sizes"], r["dtype"]) for r in rows if r["implementation"] == STOCK_COMPILED}
    panels = {key: found for key, found in points(rows).items() if key in asked}
    if not panels:
        return None
    height = sum(1 + 0.25 * len(found) for found in panels.values())
    figure, axes = plt.subplots(
        len(panels), figsize=(9, height), squeeze=False, layout="constrained",
        height_ratios=[len(found) for found in panels.values()],
    )  # fmt: skip
    for axis, ((sizes, dtype), found) in zip(axes[:, 0], panels.items(), strict=True):
        bars = sorted(found, key=lambda point: point.operation)[::-1]
        labels = [f"{point.operation}: {point.implementation}" for point in bars]
        spread = [[p.median - p.low for p in bars], [p.high - p.median for p in bars]]
        colours = ["C1" if point.implementation == OURS else "C0" for point in bars]
        axis.barh(labels, [p.median for p in bars], xerr=spread, color=colours)
        axis.set(xscale="log", title=f"{sizes} {dtype}", xlabel="time / bare product")
        axis.axvline(1, color="black", linewidth=0.8)
        axis.tick_params(axis="y", labelsize=7)
    figure.suptitle(where(rows))
    return figure


def sweep(rows: list[dict[str, str]]) -> plt.Figure | None:
    """A panel for every operation and every number that was varied; one dtype, the first."""
    dtype = rows[0]["dtype"]
    found = {parsed(sizes): p for (sizes, kind), p in points(rows).items() if kind == dtype}
    varied = {axis: line for axis in ("B", "d_in", "d_sae", "k") if (line := along(axis, found))}
    if not varied:
        return None
    operations = list(dict.fromkeys(p.operation for line in varied.values() for _, p in line))
    shape = len(operations), len(varied)
    figure, axes = plt.subplots(*shape, figsize=(4 * shape[1], 3 * shape[0]), squeeze=False,
                                layout="constrained")  # fmt: skip
    for column, (name, line) in enumerate(varied.items()):
        for panel, operation in zip(axes[:, column], operations, strict=True):
            lines = defaultdict(list)
            for value, point in line:
                if point.operation == operation:
                    lines[point.implementation].append((value, point.median))
            for implementation, at in lines.items():
                panel.plot(*zip(*sorted(at), strict=True), marker="o", label=implementation)
            panel.set(xscale="log", yscale="log", xlabel=name, title=operation,
                      ylabel="time / bare product")  # fmt: skip
            values = sorted({value for value, _ in line})
            panel.set_xticks(values, values)
            panel.minorticks_off()
            panel.legend(fontsize=6)
    figure.suptitle(f"{where(rows)}, {dtype}")
    return figure


def parsed(sizes: str) -> tuple[tuple[str, int], ...]:
    """("B", 4096) and so on."""
    return tuple((name, int(n)) for name, n in (word.split("=") for word in sizes.split()))


def along(
    axis: str, found: dict[tuple[tuple[str, int], ...], list[Point]]
) -> list[tuple[int, Point]]:
    """The most points of sizes that differ in this number only, each with its value."""
    lines = defaultdict(list)
    for size, here in found.items():
        others = tuple(pair for pair in size if pair[0] != axis)
        lines[others] += [(dict(size)[axis], point) for point in here]
    varied = [line for line in lines.values() if len({value for value, _ in line}) > 1]
    return max(varied, key=len, default=[])


if __name__ == "__main__":
    sys.exit(main())
