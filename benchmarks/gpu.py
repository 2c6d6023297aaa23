"""Everything that needs a GPU, within eight minutes: tests, sanitizers, times of kernels and steps.

    python benchmarks/gpu.py        # or: make gpu

Red tests stop it before anything is timed. Needs torch, triton, lightning and pytest, no install.
Exit code 0 if all is well, 1 if something is not, 2 without a GPU.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"
WHOLE_S = 460.0
TESTS_S = 300.0
SANITIZER_S = (15.0, 45.0)
BENCHMARK_S = (100.0, 160.0)
STEPS_S = (30.0, 90.0)
# What training needs; the kernels do without.
NEEDED = ("h5py", "jsonargparse", "rich", "safetensors", "torchmetrics", "xxhash")
STEPS = {
    "paper": ("--batch", "4096", "--d_in", "1024", "--d_sae", "8192", "--k", "32"),
    "large": ("--batch", "16384", "--d_in", "1024", "--d_sae", "65536", "--k", "64"),
}
# The benchmark ends a compilation and its last rounds after its own time is up.
MARGIN_S = 50.0
TESTS = ("-m", "pytest", "-q", "-x", "-m", "gpu", "tests/kernels",
         "-o", "addopts=", "-p", "no:cacheprovider")  # fmt: skip
CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))


def main() -> int:
    if not torch.cuda.is_available():
        print("no GPU that torch can use: nothing tested, nothing measured", file=sys.stderr)
        return 2
    end = time.monotonic() + WHOLE_S
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    code = python(*TESTS, *more_tests(), limit=TESTS_S)
    if code != 0:
        why = f"not done after {TESTS_S:g} s" if code is None else "red"
        print(f"GPU tests {why}: nothing measured", file=sys.stderr)
        return 1
    findings = []
    for tool in ("memcheck", "racecheck"):
        spare = end - time.monotonic() - MARGIN_S - BENCHMARK_S[0]
        findings += sanitize(tool, min(spare, SANITIZER_S[1]))
    left = end - time.monotonic() - MARGIN_S
    budget = f"{min(left, BENCHMARK_S[1]):.0f}"
    code = python("benchmarks/kernels.py", "--sweep", "--budget", budget, limit=left + MARGIN_S)
    if code is None:
        findings.append("benchmarks/kernels.py was not done in time")
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        print(f"training step: not measured without {', '.join(absent)}", flush=True)
    for label in () if absent else STEPS:
        findings += training_step(label, end - time.monotonic() - MARGIN_S)
        if python("benchmarks/step_memory.py", *STEPS[label], limit=MARGIN_S):
            findings.append(f"benchmarks/step_memory.py, {label}: failed")
    print(*findings, sep="\n", end="\n" if findings else "", file=sys.stderr)
    return 1 if findings or code else 0


def more_tests() -> list[str]:
    """Those that need more than is asked for, where it is installed."""
    more = ["tests/training", "tests/activations/test_ahead.py"]
    return more if all(find_spec(name) for name in NEEDED) else []


def training_step(label: str, left: float) -> list[str]:
    """Time whole steps of one size; a line if an implementation fails."""
    if left < STEPS_S[0]:
        print(f"training step, {label}: no time for it, so nothing is known", flush=True)
        return []
    budget = min(left, STEPS_S[1])
    out = RESULTS / f"train_step_cuda_{label}.csv"
    code = python(
        "benchmarks/train_step.py", "--device", "cuda", *STEPS[label], "--rounds", "3",
        "--budget", f"{budget:.0f}", "--out", str(out), limit=budget + MARGIN_S,
    )  # fmt: skip
    return [] if code == 0 else [f"benchmarks/train_step.py, {label}: not everything was measured"]


def sanitize(tool: str, limit: float) -> list[str]:
    """Run one tool of compute-sanitizer on small shapes; a line if it finds something."""
    program = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=str(CUDA / "bin")
    )
    if program is None:
        print(f"{tool}: compute-sanitizer not found", flush=True)
        return []
    if limit < SANITIZER_S[0]:
        print(f"{tool}: no time for it, so nothing is known", flush=True)
        return []
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable,
               str(BENCHMARKS / "small_shapes.py")]  # fmt: skip
    # Without torch's cache every tensor has bounds of its own.
    code = finish(command, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, limit)
    if code is None:
        print(f"{tool}: not done after {limit:.0f} s, so nothing is known", flush=True)
        return []
    print(f"{tool}: {'clean' if code == 0 else f'exit code {code}'}", flush=True)
    return [] if code == 0 else [f"compute-sanitizer {tool} ended with exit code {code}"]


def python(*arguments: str, limit: float) -> int | None:
    """Exit code of this interpreter with arguments, None if it took too long."""
    return finish([sys.executable, *arguments], {}, limit)


def finish(command: list[str], variables: dict[str, str], limit: float) -> int | None:
    """Exit code of a command in the checkout; one that takes too long is ended, None."""
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | variables | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.pop("TRITON_INTERPRET", None)
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # What it started goes too: it would be on the GPU while the next one is timed.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
