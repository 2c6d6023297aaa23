"""The measurements of one size and dtype, as CSV rows and in words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from operations.correctness import Check
from operations.names import BARE, COPY, OURS
from operations.sizes import Size
from operations.stopwatch import Timed, quantiles

Name = tuple[str, str]
Row = dict[str, str | int | float]


@dataclass
class Measured:
    """Everything known about one size and dtype.

    Attributes:
        size: The size.
        dtype: "bf16", "fp16" or "fp32".
        device: Device type.
        timed: By operation and implementation.
        checks: Errors against float64.
        missing: Why a case has no time: it did not fit, or the time was up.
        failed: What a case, or the checks, raised.
    """

    size: Size
    dtype: str
    device: str
    timed: dict[Name, Timed] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    missing: dict[Name, str] = field(default_factory=dict)
    failed: dict[Name, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Sizes and dtype."""
        return f"{self.size} {self.dtype}"

    def time_ms(self, name: Name) -> float | None:
        """Median time of a case, None where it was not timed."""
        return quantiles(self.timed[name].times_ms)[1] if name in self.timed else None

    def floor_ms(self, name: Name) -> float | None:
        """The time a case cannot beat: its product or its bytes at the rates of this very run."""
        case, product, copy = self.timed[name].case, self.time_ms(BARE), self.time_ms(COPY)
        if name in (BARE, COPY) or product is None or copy is None:
            return None
        copied = self.timed[COPY].case.traffic
        return max(product * case.flops / self.size.product_flops, copy * case.traffic / copied)

    def metrics(self, name: Name) -> Iterator[tuple[str, str, float, float, float]]:
        """Metric, unit, median, 20th and 80th percentile."""
        one = self.timed[name]
        low, median, high = quantiles(one.times_ms)
        fastest, launch, slowest = quantiles(one.launches_ms)
        yield "time_p50", "ms", median, low, high
        yield "launch_time_p50", "ms", launch, fastest, slowest
        if one.memory_mib is not None:
            yield "memory_over_start", "MiB", *[one.memory_mib] * 3
        per_ms = 1 / median, 1 / high, 1 / low
        if one.case.flops:
            yield "arithmetic", "TFLOP/s", *(one.case.flops / 1e9 * rate for rate in per_ms)
        if one.case.traffic:
            yield "traffic", "GB/s", *(one.case.traffic / 1e6 * rate for rate in per_ms)
        if (floor := self.floor_ms(name)) is not None:
            yield "of_ceiling", "%", *(100 * floor * rate for rate in per_ms)
        if (product := self.time_ms(BARE)) is not None:
            yield "time_over_product", "", median / product, low / product, high / product


def csv_rows(measured: Iterable[Measured]) -> Iterator[Row]:
    """One row per metric; what was not measured has a row that says why."""
    for one in measured:
        known: Row = {"benchmark": "kernels", "sizes": str(one.size), "dtype": one.dtype}
        known |= {"device": "cuda"} if one.device == "cuda" else {"device": "cpu", "gpu": ""}
        for name, timed in one.timed.items():
            case: Row = {
                "operation": name[0], "implementation": name[1], "samples": len(timed.times_ms),
                "implementation_version": timed.case.version,
            }  # fmt: skip
            for metric, unit, median, low, high in one.metrics(name):
                figures = {"median": f"{median:.6g}", "low": f"{low:.6g}", "high": f"{high:.6g}"}
                yield {**known, **case, "metric": metric, "unit": unit, **figures}
        for check in one.checks:
            yield from ({**known, **row} for row in _check_rows(check))
        for (operation, implementation), reason in (one.missing | one.failed).items():
            yield {**known, "operation": operation, "implementation": implementation,
                   "metric": f"not measured: {reason}"}  # fmt: skip


def _check_rows(check: Check) -> Iterator[Row]:
    figures = {
        f"{check.output} error": ("relative", check.error),
        f"{check.output} reference_error": ("relative", check.reference_error),
        f"{check.output} error_ratio": ("", check.ratio),
        "differing_repeats": (f"of {check.repeats}", check.differing),
    }
    for metric, (unit, value) in figures.items():
        yield {"operation": check.operation, "implementation": OURS, "metric": metric,
               "unit": unit, "median": f"{value:.6g}"}  # fmt: skip


def words(one: Measured) -> Iterator[str]:
    """A table of the times of one size, then its errors and what is missing."""
    heading = ("operation", "implementation", "ms", "p20 - p80", "/ product", "TFLOP/s", "GB/s",
               "of ceiling", "MiB", "launch ms")  # fmt: skip
    rows = [_cells(one, name) for name in one.timed]
    yield one.title if one.device == "cuda" else f"{one.title}, interpreted: no time is a speed"
    yield from columns([heading, *rows], left=2)
    for check in one.checks:
        yield (
            f"{check.operation} {check.output}: error {check.error:.2e}, the reference's "
            f"{check.reference_error:.2e}; {check.differing} of {check.repeats} repeats differ"
        )
    for name, reason in (one.missing | one.failed).items():
        yield f"not measured: {' by '.join(name)}: {reason}"


def _cells(one: Measured, name: Name) -> tuple[str, ...]:
    found = {metric: (median, low, high) for metric, _, median, low, high in one.metrics(name)}

    def shown(metric: str, digits: int) -> str:
        return f"{found[metric][0]:.{digits}f}" if metric in found else ""

    _, low, high = found["time_p50"]
    return (
        *name, shown("time_p50", 3), f"{low:.3f} - {high:.3f}", shown("time_over_product", 2),
        shown("arithmetic", 0), shown("traffic", 0), shown("of_ceiling", 0),
        shown("memory_over_start", 0), shown("launch_time_p50", 3),
    )  # fmt: skip


def columns(rows: list[tuple[str, ...]], left: int) -> Iterator[str]:
    """Rows as aligned text; all but the first columns are aligned to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(cells)
        ).rstrip()
