"""Measurements read back from the files that kernels.py and train_step.py write."""

from operations.correctness import Check
from operations.inputs import Case
from operations.report import Measured
from operations.sizes import LARGE, PAPER
from operations.stopwatch import Timed
from peers import process

Row = dict[str, str]
STEP_FIGURES = {"step_time": "step_ms", "memory_over_state": "memory_over_state_mib"}


def kernels(rows: list[Row]) -> list[Measured]:
    """What goals of the kernels look at: times, traffic and errors at the sizes that have goals."""
    found: dict[tuple[str, str], Measured] = {}
    for row in rows:
        size = next((size for size in (LARGE, PAPER) if str(size) == row["sizes"]), None)
        if size is not None and row["median"]:
            key = row["sizes"], row["dtype"]
            one = found.setdefault(key, Measured(size, row["dtype"], row["device"]))
            _add(one, row)
    return list(found.values())


def _add(one: Measured, row: Row) -> None:
    """Add the figure of a row; those of a case or check follow one another in its file."""
    name, figure = (row["operation"], row["implementation"]), float(row["median"])
    output, _, what = row["metric"].rpartition(" ")
    if row["metric"] == "time_p50":
        one.timed[name] = Timed(Case(*name, lambda: None, 0, 0), None, 0, 0, [figure], [])
    elif row["metric"] == "traffic":
        timed = one.timed[name]
        timed.case = timed.case._replace(traffic=round(figure * 1e6 * timed.times_ms[0]))
    elif what == "error":
        one.checks.append(Check(row["operation"], output, figure, 0.0, 0, 0))
    elif what == "reference_error":
        one.checks[-1] = one.checks[-1]._replace(reference_error=figure)
    elif row["metric"] == "differing_repeats":
        one.checks[-1] = one.checks[-1]._replace(differing=int(figure))


def steps(rows: list[Row]) -> dict[str, process.Measured]:
    """What goals of the steps look at, by implementation."""
    found: dict[str, process.Measured] = {}
    for row in rows:
        if row["metric"] in STEP_FIGURES and row["device"] == "cuda":
            one = found.setdefault(row["implementation"], process.Measured())
            setattr(one, STEP_FIGURES[row["metric"]], [float(row["median"])])
    return found
