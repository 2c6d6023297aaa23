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


SIZES = {"large": LARGE, "paper": PAPER}


def goals(results: dict[str, Measured], label: str) -> Iterator[tuple[str, ...]]:
    """Size, goal, bound, figure and whether it is met, for each goal of a size in `SIZES`.

    A goal without a figure is neither met nor missed.
    """
    for goal in _EVERYWHERE + (_LARGE if label == "large" else []):
        one, other = (_first(names, goal.figure, results) for names in (goal.one, goal.other))
        bound = f"{'>=' if goal.at_least else '<='} {goal.bound:.2f}"
        what = goal.figure.removesuffix("_ms").removesuffix("_mib").replace("_", " ")
        text = f"{what} of {one or goal.one[0]} / {other or goal.other[0]}"
        if one is None or other is None:
            yield label, text, bound, "not measured", ""
            continue
        ratio = median(getattr(results[one], goal.figure)) / median(
            getattr(results[other], goal.figure)
        )
        met = ratio >= goal.bound if goal.at_least else ratio <= goal.bound
        yield label, text, bound, f"{ratio:.2f}", "yes" if met else "no"


def _first(names: tuple[str, ...], figure: str, results: dict[str, Measured]) -> str | None:
    return next((n for n in names if n in results and getattr(results[n], figure)), None)
