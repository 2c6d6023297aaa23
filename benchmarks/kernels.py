"""Time, memory and errors of the fused operations against the reference, stock torch and peers.

    python benchmarks/kernels.py [--sweep] [--dtype bf16 fp16 fp32]

Needs torch and triton, and the checkout on PYTHONPATH. Every time is compared with a bare product
of the encoder's shape and with a device copy of the same run. NOTES.md says how and against what.
Without a GPU, --device cpu runs tiny sizes in Triton's interpreter: errors are real, times are not.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import torch

# Triton reads it when it is imported, which torch does with the kernels.
os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"

from common import RESULTS, write_rows
from operations import goals
from operations.cases import cases, draw
from operations.correctness import checks, wrong
from operations.inputs import Case, Inputs
from operations.names import OURS
from operations.report import Measured, columns, csv_rows, words
from operations.sizes import LARGE, PAPER, SMOKE, SMOKE_SWEEP, SWEEP, Size, around
from operations.stopwatch import Stopwatch, Timed

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main() -> int:
    options = parse()
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that torch can use: nothing measured", file=sys.stderr)
        return 2
    deadline = time.monotonic() + options.budget
    stopwatch = Stopwatch(torch.device(options.device))
    measured: list[Measured] = []
    left_out: list[str] = []
    for dtype in options.dtype:
        for size in sizes(options):
            if time.monotonic() > deadline:
                left_out.append(f"{size} {dtype}")
                continue
            measured.append(Measured(size, dtype, options.device))
            measure(measured, stopwatch, options, deadline)
            print(*words(measured[-1]), "", sep="\n", flush=True)
    if left_out:
        print(f"left out, the {options.budget:g} s were up:", *left_out, "", sep="\n")
    print(f"written to {options.out}" if options.out else "nothing written: no --out")
    print(*columns(goals.table(measured), left=2), sep="\n")
    return 1 if any(one.failed for one in measured) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default cuda")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES,
                        help="default bf16; fp16 on the CPU")  # fmt: skip
    parser.add_argument("--sweep", action="store_true",
                        help="then B, d_in, d_sae and k around the paper's size")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--budget", type=float, default=130.0, metavar="SECONDS",
                        help="begin nothing new after this time, default 130")  # fmt: skip
    parser.add_argument("--out", type=Path,
                        help="CSV, default results/kernels_<gpu>.csv; none on the CPU")  # fmt: skip
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    options.dtype = options.dtype or ["fp16" if on_cpu else "bf16"]
    if on_cpu and "bf16" in options.dtype:
        parser.error("--dtype bf16 needs a GPU: Triton's interpreter gets bf16 products wrong")
    if on_cpu and torch.cuda.is_available():
        parser.error("--device cpu is for a machine without a GPU")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.out is None and not on_cpu and torch.cuda.is_available():
        gpu = re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_")
        options.out = RESULTS / f"kernels_{gpu}.csv"
    return options


def sizes(options: argparse.Namespace) -> list[Size]:
    """What is measured, in this order."""
    if options.device == "cpu":
        return [SMOKE, *(around(SMOKE, SMOKE_SWEEP) if options.sweep else [])]
    return [PAPER, LARGE, *(around(PAPER, SWEEP) if options.sweep else [])]


@torch.no_grad()
def measure(
    measured: list[Measured], stopwatch: Stopwatch, options: argparse.Namespace, deadline: float
) -> None:
    """Check the fused operations of the last size, then time every implementation that fits."""
    torch.compiler.reset()  # every size is compiled for itself, none for any shape
    one, whole = measured[-1], measured[-1].size.label != "swept"
    inputs = draw(one.size, DTYPES[one.dtype], torch.device(options.device))
    check(one, inputs)
    for case in cases(inputs, one.size, whole=whole):
        if time.monotonic() > deadline:
            one.missing[case.name] = "the time was up"
        elif case.implementation == OURS and (reason := not_right(one, case.operation)):
            one.missing[case.name] = f"not right: {reason}"
        elif (timed := prepare(one, case, stopwatch)) is not None:
            one.timed[case.name] = timed
            stopwatch.rounds([timed], 1, deadline)
        if whole:
            save(measured, options)
    stopwatch.rounds(list(one.timed.values()), options.rounds - 1, deadline)
    for timed in one.timed.values():
        timed.release()
    save(measured, options)


def save(measured: list[Measured], options: argparse.Namespace) -> None:
    if options.out:
        write_rows(options.out, csv_rows(measured))


def not_right(one: Measured, operation: str) -> str | None:
    """Why an operation of ours is not timed."""
    return one.failed.get(("checks", OURS)) or wrong(one.checks).get(operation)


def check(one: Measured, inputs: Inputs) -> None:
    try:
        one.checks = list(checks(inputs, one.size))
    except Exception as error:
        one.failed["checks", OURS] = _line(error)


def prepare(one: Measured, case: Case, stopwatch: Stopwatch) -> Timed | None:
    """A case that is ready for its rounds; one that cannot run costs the others nothing."""
    try:
        return stopwatch.prepare(case)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        gib = torch.cuda.mem_get_info()[1] / 2**30
        one.missing[case.name] = f"does not fit in {gib:.0f} GiB"
    except Exception as error:
        one.failed[case.name] = _line(error)
    return None


def _line(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}"


if __name__ == "__main__":
    sys.exit(main())
