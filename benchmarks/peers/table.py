"""The measurements as CSV rows, as a table, and in words."""

import argparse
from statistics import median

from peers.goals import SIZES, goals
from peers.implementations import BASELINE, IMPLEMENTATIONS, OURS, PRODUCT, STAND_IN
from peers.process import WORKER, Measured
from rich import box
from rich.table import Table

QUIET = 0.05


def csv_rows(results: dict[str, Measured], options: argparse.Namespace) -> list[dict]:
    """One row per implementation and metric; low and high are the extreme rounds."""
    written = []
    for name, one in results.items():
        metrics = {
            ("step_time", "ms"): one.step_ms,
            ("fastest_step_time", "ms"): one.fastest_ms,
            ("forward_time", "ms"): one.forward_ms,
            ("backward_time", "ms"): one.backward_ms,
            ("update_time", "ms"): one.update_ms,
            ("throughput", "rows/s"): [1e3 * options.batch / ms for ms in one.step_ms],
            ("memory_over_start", "MiB"): one.memory_mib,
            ("memory_over_state", "MiB"): one.memory_over_state_mib,
            ("fvu_after_steps", ""): one.fvu,
            ("cpu_elsewhere", "fraction"): one.elsewhere,
        }
        for (metric, unit), values in metrics.items():
            if values:
                written.append({
                    "benchmark": "train_step", "implementation": name, "device": options.runs_on,
                    "implementation_version": one.version, "torch": one.torch,
                    "sizes": _sizes(options), "dtype": IMPLEMENTATIONS[options.device][name].dtype,
                    "threads": options.threads, "metric": metric, "unit": unit,
                    "median": f"{median(values):.6g}", "low": f"{min(values):.6g}",
                    "high": f"{max(values):.6g}", "samples": len(values),
                })  # fmt: skip
    return written


def missing_rows(reasons: dict[str, str], options: argparse.Namespace) -> list[dict]:
    """A row for each implementation that has no time, with the reason."""
    return [
        {
            "benchmark": "train_step", "implementation": name, "device": options.runs_on,
            "sizes": _sizes(options), "metric": f"not measured: {reason}",
        }
        for name, reason in reasons.items()
    ]  # fmt: skip


def table(results: dict[str, Measured], options: argparse.Namespace) -> Table:
    """All implementations, fastest first; ours in bold, what beats our plain step in red."""
    view = Table(
        title=f"Training step on {options.device}, {_sizes(options)}, {options.threads} threads: "
        + (
            "rehearsed on the CPU, no time is a speed"
            if options.rehearse
            else f"median of {options.rounds} rounds of {options.steps} steps"
        ),
        box=box.SIMPLE_HEAD,
    )
    base = BASELINE if options.device == "cpu" or BASELINE in results else PRODUCT
    for heading in ("implementation", "version", "torch"):
        view.add_column(heading, no_wrap=True)
    headings = (
        "step\nms", "forward\nms", "backward\nms", "update\nms", f"step /\n{base}",
        f"step /\n{OURS}", "\nrows/s", "memory\nMiB", f"memory /\n{base}", "\nFVU", "other\nwork",
    )  # fmt: skip
    for heading in headings:
        view.add_column(heading, justify="right", no_wrap=True)
    ours, baseline = results.get(OURS), results.get(base)
    for name, one in sorted(results.items(), key=lambda item: median(item[1].step_ms)):
        to_ours = {what: _ratio(what, one, ours) for what in ("step_ms", "memory_mib")}
        view.add_row(
            name,
            one.version,
            one.torch.partition("+")[0],
            _lost(_number(one.step_ms, 1), name, to_ours["step_ms"]),
            *(_number(values, 1) for values in (one.forward_ms, one.backward_ms, one.update_ms)),
            _shown(_ratio("step_ms", one, baseline)),
            _shown(to_ours["step_ms"]),
            f"{1e3 * options.batch / median(one.step_ms):,.0f}",
            _lost(_number(one.memory_mib, 0), name, to_ours["memory_mib"]),
            _shown(_ratio("memory_mib", one, baseline)),
            _number(one.fvu, 3),
            f"{max(one.elsewhere):.0%}",
            style="bold" if _is_ours(name) else None,
        )
    return view


def remarks(
    results: dict[str, Measured],
    missing: list[str],
    failures: dict[str, str],
    options: argparse.Namespace,
) -> list[str]:
    """Where this package loses, what was not measured, and whether the machine was quiet."""
    lines = []
    for what, better in (("step_ms", "faster"), ("memory_mib", "lighter")):
        for name, one in results.items():
            ratio = _ratio(what, one, results.get(OURS))
            if ratio is not None and 0 < ratio < 1 and not _is_ours(name):
                lines.append(f"[red]{name} is {1 / ratio:.2f}x {better} than {OURS}[/]")
    if options.runs_on == "cuda":
        label = next((name for name, size in SIZES.items() if size == options.sizes), "")
        lines += [" ".join(goal) for goal in (goals(results, label) if label else ())]
        if BASELINE in missing:
            lines.append(f"{BASELINE} is not installed: {STAND_IN} is in its place")
    if missing:
        script = f"python {WORKER.with_name('setup.py')} --folder {options.peers}"
        lines.append(f"not measured: {', '.join(missing)}; make their environments with {script}")
    lines += [f"[red]{name} failed: {message}[/]" for name, message in failures.items()]
    loud = max((share for one in results.values() for share in one.elsewhere), default=0.0)
    lines.append(f"other work took up to {loud:.0%} of the processors")
    if loud > QUIET:
        lines.append("[red]not a quiet machine: these figures are preliminary[/]")
    return lines


def _sizes(options: argparse.Namespace) -> str:
    return " ".join(f"{name}={size}" for name, size in options.sizes.items())


def _is_ours(name: str) -> bool:
    return name.startswith(OURS)


def _ratio(what: str, one: Measured, other: Measured | None) -> float | None:
    if other is None or not getattr(one, what) or not getattr(other, what):
        return None
    below = median(getattr(other, what))
    return median(getattr(one, what)) / below if below else None


def _number(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f}" if values else ""


def _shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _lost(text: str, name: str, ratio_to_ours: float | None) -> str:
    beaten = ratio_to_ours is not None and ratio_to_ours < 1 and not _is_ours(name)
    return f"[red]{text}[/]" if beaten else text
