"""What a step on a GPU is meant to take, and whether this run did."""

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from peers.implementations import BASELINE, DENSE, OURS, PRODUCT, STAND_IN
from peers.process import Measured

LARGE = {"batch": 16384, "d_in": 1024, "d_sae": 65536, "k": 64}
PAPER = {"batch": 4096, "d_in": 1024, "d_sae": 8192, "k": 32}
GRAPH = f"{OURS} graph"


class Goal(NamedTuple):
    """A bound on the ratio of a figure of two implementations.

    Attributes:
        one: Above the line; of several names the first that was measured.
        other: Below the line, likewise.
        bound: The bound.
        figure: What is compared, a field of `Measured`.
        at_least: The ratio must reach the bound instead of staying below it.
    """

    one: tuple[str, ...]
    other: tuple[str, ...]
    bound: float
    figure: str = "step_ms"
    at_least: bool = False


_EVERYWHERE = [
    Goal((BASELINE, STAND_IN), (GRAPH, OURS), 2.0, at_least=True),
    Goal((DENSE,), (GRAPH, OURS), 4.0, at_least=True),
    Goal((OURS,), (DENSE,), 1 / 3, "memory_over_state_mib"),
]
_LARGE = [
    Goal((OURS,), (PRODUCT,), 2.6),
    Goal((f"{OURS} reg1",), (PRODUCT,), 4.2),
    Goal((f"{OURS} reg2",), (PRODUCT,), 4.2),
]


def goals(results: dict[str, Measured], sizes: dict[str, int]) -> Iterator[str]:
    """One line for each goal of these sizes."""
    known = {"large": LARGE, "paper": PAPER}
    label = next((name for name, size in known.items() if size == sizes), None)
    if label is None:
        return
    for goal in _EVERYWHERE + (_LARGE if label == "large" else []):
        one, other = (_first(names, goal.figure, results) for names in (goal.one, goal.other))
        wanted = f"{'>=' if goal.at_least else '<='} {goal.bound:.2f}"
        what = goal.figure.removesuffix("_ms").removesuffix("_mib").replace("_", " ")
        if one is None or other is None:
            yield f"{what} of {goal.one[0]} / {goal.other[0]} {wanted}: not measured"
            continue
        ratio = median(getattr(results[one], goal.figure)) / median(
            getattr(results[other], goal.figure)
        )
        met = ratio >= goal.bound if goal.at_least else ratio <= goal.bound
        yield f"{what} of {one} / {other} {wanted}: {ratio:.2f}, {'met' if met else 'missed'}"


def _first(names: tuple[str, ...], figure: str, results: dict[str, Measured]) -> str | None:
    return next((n for n in names if n in results and getattr(results[n], figure)), None)
