"""Every goal on a GPU, and what the files in a folder say of it so far."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common import GPU_KERNELS, GPU_STEPS, GPU_TESTS, read_rows
from operations import goals as kernel_goals
from operations.report import columns
from peers import goals as step_goals
from phases import stored

MOST_NAMES = 20


def summary(folder: Path) -> Iterator[str]:
    """The machine, the tests, what was not measured, and last the goals."""
    tests = read_rows(folder / GPU_TESTS)
    kernels = read_rows(folder / GPU_KERNELS)
    steps = {label: read_rows(folder / name) for label, name in GPU_STEPS.items()}
    measured = kernels + [row for rows in steps.values() for row in rows]
    yield from machines(tests + measured)
    yield from outcomes(tests)
    yield from unmeasured(measured)
    said = {row["gpu_tests"] for row in measured if row["device"] == "cuda"} - {"green"}
    if said:
        yield f"measured while the GPU tests were: {'; '.join(sorted(said))}"
    of_kernels = kernel_goals.table(stored.kernels(kernels))
    of_steps = [
        goal
        for label, rows in steps.items()
        for goal in step_goals.goals(stored.steps(rows), label)
    ]
    yield from columns([*of_kernels, *of_steps], left=2)


def machines(rows: list[dict[str, str]]) -> Iterator[str]:
    """One line for each machine and version that is in the files."""
    found = (
        f"{row['gpu'] or 'no GPU'}, torch {row['torch'].partition('+')[0]}, "
        f"triton {row['triton'] or 'missing'}, Python {row['python']}, "
        f"commit {row['commit'] or 'unknown'}"
        for row in rows
    )
    yield from dict.fromkeys(found)


def outcomes(rows: list[dict[str, str]]) -> Iterator[str]:
    """How many tests passed; the names of those that did not."""
    if not rows:
        yield "GPU tests: not run"
        return
    counts = Counter(row["metric"] for row in rows)
    yield f"GPU tests: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}"
    for outcome in ("failed", "error", "not reached", "nothing known"):
        names = [row["operation"] for row in rows if row["metric"] == outcome]
        yield from (f"  {outcome}: {name}" for name in names[:MOST_NAMES])
        if len(names) > MOST_NAMES:
            yield f"  {outcome}: {len(names) - MOST_NAMES} more, see {GPU_TESTS}"


def unmeasured(rows: list[dict[str, str]]) -> Iterator[str]:
    """One line for each reason why something has no time."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["metric"].startswith("not measured: "):
            what = " ".join(filter(None, (row["operation"], row["implementation"])))
            reasons.setdefault(row["metric"], []).append(f"{what} ({row['sizes']})")
    for reason, names in reasons.items():
        shown = "; ".join(names[:MOST_NAMES])
        more = f"; {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        yield f"{reason}: {shown}{more}"
