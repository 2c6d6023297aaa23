"""Measurements read back from the files that kernels.py and train_step.py write."""

from operations.correctness import Check
from operations.implementations import Case
from operations.report import Measured
from operations.sizes import LARGE, PAPER
from operations.stopwatch import Timed
from peers import process

Row = dict[str, str]
STEP_FIGURES = {"step_time": "step_ms", "memory_over_state": "memory_over_state_mib"}


def kernels(rows: list[Row]) -> list[Measured]:
    """What goals of the kernels look at: times, traffic and errors at the sizes that have goals."""
    found = {}
    for row in rows:
        size = next((size for size in (LARGE, PAPER) if str(size) == row["sizes"]), None)
        if size is not None:
            key = size.label, row["dtype"]
            found.setdefault(key, Measured(size, row["dtype"], row["device"]))
    for (label, dtype), one in found.items():
        figures = {
            (row["operation"], row["implementation"], row["metric"]): row
            for row in rows
            if (row["sizes"], row["dtype"]) == (str(one.size), dtype) and row["median"]
        }
        one.timed = _timed(figures)
        one.checks = list(_checks(figures))
    return list(found.values())


def _timed(figures: dict[tuple[str, str, str], Row]) -> dict[tuple[str, str], Timed]:
    timed = {}
    for (operation, implementation, metric), row in figures.items():
        if metric == "time_p50":
            ms = float(row["median"])
            rate = figures.get((operation, implementation, "traffic"))
            traffic = round(float(rate["median"]) * 1e6 * ms) if rate else 0
            case = Case(operation, implementation, lambda: None, 0, traffic)
            timed[case.name] = Timed(case, None, 0, 0, [ms], [ms])
    return timed


def _checks(figures):
    for (operation, implementation, metric), row in figures.items():
        output = metric.removesuffix(" error")
        if output == metric:
            continue
        of = lambda name: figures[operation, implementation, name]  # noqa: E731
        repeats = of("differing_repeats")
        yield Check(
            operation, output, float(row["median"]), float(of(f"{output} reference_error")["median"]),
            int(float(repeats["median"])), int(repeats["unit"].removeprefix("of ")),
        )  # fmt: skip


def steps(rows: list[Row]) -> dict[str, process.Measured]:
    """What goals of the steps look at, by implementation."""
    found: dict[str, process.Measured] = {}
    for row in rows:
        if row["metric"] in STEP_FIGURES and row["device"] == "cuda":
            one = found.setdefault(row["implementation"], process.Measured())
            setattr(one, STEP_FIGURES[row["metric"]], [float(row["median"])])
    return found
