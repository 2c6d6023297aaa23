"""The goals, and whether this run met them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from operations.names import BARE, COPY, DECODE, OURS
from operations.report import Measured

DTYPE, ITEMSIZE = "bf16", 2
NOT_MEASURED = "not measured"
ENCODE = ("encode", OURS)


class Goal(NamedTuple):
    """A bound on a figure of one size in bf16.

    Attributes:
        label: The size.
        text: What is bounded.
        bound: The bound.
        figure: Takes it from the measurements; None where something it needs is missing.
    """

    label: str
    text: str
    bound: float
    figure: Callable[[Measured], float | None]


def over(name: tuple[str, str], other: tuple[str, str]) -> Callable[[Measured], float | None]:
    """Time of one case over the time of another."""

    def figure(one: Measured) -> float | None:
        above, below = one.time_ms(name), one.time_ms(other)
        return None if above is None or below is None else above / below

    return figure


def decode_over_its_bytes(one: Measured) -> float | None:
    """Time of the decode over the time that its bytes take at the rate of the copy."""
    decode, copy = one.time_ms((DECODE, OURS)), one.time_ms(COPY)
    if decode is None or copy is None:
        return None
    copied, needed = one.timed[COPY].case.traffic, one.timed[DECODE, OURS].case.traffic
    return decode / (copy * needed / copied)


def encode_over_product_and_pass(one: Measured) -> float | None:
    """Time of encode over that of the product and of reading its result once.

    Public exact Top-k kernels need about one pass over memory.
    """
    encode, product, copy = (one.time_ms(name) for name in (ENCODE, BARE, COPY))
    if encode is None or product is None or copy is None:
        return None
    activations = ITEMSIZE * one.size.B * one.size.d_sae
    return encode / (product + copy * activations / one.timed[COPY].case.traffic)


def error_ratio(output: str) -> Callable[[Measured], float | None]:
    """The largest error of an output over the error of the reference in the same dtype."""
    return lambda one: max((c.ratio for c in one.checks if c.output == output), default=None)


def differing(one: Measured) -> float | None:
    """Repeats of any operation that gave other bits."""
    # Every output of an operation tells of the same repeats.
    by_operation = {check.operation: check.differing for check in one.checks}
    return sum(by_operation.values()) if by_operation else None


def _of_size(label: str, encode: float) -> list[Goal]:
    return [
        Goal(label, "encode / bare product", encode, over(ENCODE, BARE)),
        Goal(label, "encode / (product + one pass)", 1.0, encode_over_product_and_pass),
        Goal(label, "sparse_decode / its bytes at the copy's rate", 1.5, decode_over_its_bytes),
        Goal(label, "error of values / the reference's", 2.0, error_ratio("values")),
        Goal(label, "error of x_hat / the reference's", 2.0, error_ratio("x_hat")),
        Goal(label, "repeats with other bits", 0.0, differing),
    ]  # fmt: skip


GOALS = [
    *_of_size("large", 1.35),
    Goal("large", "encode+off_support_l1 / bare product", 1.6,
         over(("encode+off_support_l1", OURS), BARE)),
    Goal("large", "encode+l1_l2_ratio / bare product", 1.6,
         over(("encode+l1_l2_ratio", OURS), BARE)),
    *_of_size("paper", 1.8),
]  # fmt: skip


def table(measured: Iterable[Measured]) -> list[tuple[str, ...]]:
    """Size, goal, bound, figure, met; a goal without a figure is neither met nor missed."""
    on_gpu = {
        one.size.label: one for one in measured if one.device == "cuda" and one.dtype == DTYPE
    }
    rows = [("size", f"goal ({DTYPE})", "bound", "measured", "met")]
    for goal in GOALS:
        figure = goal.figure(on_gpu[goal.label]) if goal.label in on_gpu else None
        bound = f"<= {goal.bound:g}"
        if figure is None:
            rows.append((goal.label, goal.text, bound, NOT_MEASURED, ""))
            continue
        met = "yes" if figure <= goal.bound else "no"
        rows.append((goal.label, goal.text, bound, f"{figure:.3g}", met))
    return rows
