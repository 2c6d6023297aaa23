"""Tests on a GPU, times of kernels and times of training steps, a phase of eight minutes each.

    python benchmarks/gpu.py [tests] [kernels] [steps] [--out FOLDER]      # or: make gpu
    python benchmarks/gpu.py summary --out FOLDER                          # anywhere

Without a name all three, in turn. A phase ends by its own clock: what it has by then is in FOLDER,
what it did not reach is listed. A summary of all goals comes last, from all that is in FOLDER.
Needs torch, triton, numpy and pytest; steps need what training does. Nothing has to be installed.
Exit code 0 if all is well, 1 if something is red or was not done, 2 without a GPU.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from common import (
    GPU_FAILURES,
    GPU_KERNELS,
    GPU_MEMORY,
    GPU_STEPS,
    GPU_SUMMARY,
    GPU_TESTS,
    RESULTS,
    gpu_tests,
    read_rows,
    write_rows,
)

ROOT = Path(__file__).resolve().parents[1]
PHASE_S = 460.0
SANITIZER_S = 45.0
# kernels.py ends a compilation and its last rounds after its own time is up.
MARGIN_S = 60.0
MEMORY_S = 30.0
ENDING_S = 10.0
# What training needs; the kernels do without.
NEEDED = ("h5py", "lightning", "rich", "safetensors", "torchmetrics", "xxhash")
# A warning of that machine's versions is no fault of a kernel.
TESTS = ("-m", "pytest", "-q", "-m", "gpu", "--tb", "short", "-p", "no:cacheprovider",
         "-o", "addopts=", "-o", "filterwarnings=default", "--disable-warnings",
         "-p", "benchmarks.phases.outcomes")  # fmt: skip
PROCESSES = ("-n", "8", "--dist", "worksteal")
OF_KERNELS = ("tests/kernels",)
OF_TRAINING = ("tests/sae/test_compile.py", "tests/training/test_cuda_graph.py",
               "tests/activations/loading/test_gpu_prefetch.py")  # fmt: skip
STEPS = {
    "paper": ("--batch", "4096", "--d_in", "1024", "--d_sae", "8192", "--k", "32"),
    "large": ("--batch", "16384", "--d_in", "1024", "--d_sae", "65536", "--k", "64"),
}
SHORT = ("--rehearse", "--rounds", "1", "--warmup", "1", "--steps", "4", "--threads", "1")
TINY = ("--batch", "16", "--d_in", "16", "--d_sae", "64", "--k", "4")
VERDICTS = {0: "passed", 9: "failed"}
CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))


class Phase(NamedTuple):
    """Where a phase writes, and until when it may run.

    Attributes:
        out: The folder.
        end: By `time.monotonic`.
        rehearse: Interpreted on the CPU, at tiny sizes.
    """

    out: Path
    end: float
    rehearse: bool

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def python(self, *arguments: str, limit: float, log: Path | None = None) -> int | None:
        """Exit code of this interpreter with arguments, None if it took too long."""
        variables = {"TRITON_INTERPRET": "1"} if self.rehearse else {}
        return finish([sys.executable, *arguments], variables, limit, log)


def main() -> int:
    options = parse()
    names = [name for name in options.phases or PHASES if name != SUMMARY]
    if names and not torch.cuda.is_available() and not options.rehearse:
        print("no GPU that torch can use: nothing tested, nothing measured", file=sys.stderr)
        return 2
    findings = []
    for name in names:
        print(f"== {name}", flush=True)
        phase = Phase(options.out, time.monotonic() + PHASE_S, options.rehearse)
        findings += PHASES[name](phase)
    sys.path.insert(0, str(ROOT / "kernels"))
    from phases.summary import summary  # where the kernels are a checkout, only now in reach

    lines = [*findings, *summary(options.out)]
    (options.out / GPU_SUMMARY).write_text("\n".join(lines) + "\n")
    print("== summary", *lines, sep="\n", flush=True)
    return 1 if findings else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {KNOWN}")
    parser.add_argument("--out", type=Path, help=f"default {RESULTS}")
    parser.add_argument("--rehearse", action="store_true",
                        help="tiny sizes, interpreted, without a GPU; needs --out")  # fmt: skip
    options = parser.parse_args()
    for name in options.phases:
        if name not in (*PHASES, SUMMARY):
            parser.error(f"{name}: not one of {KNOWN}")
    if options.rehearse and (options.out is None or torch.cuda.is_available()):
        parser.error("--rehearse needs --out, and a machine without a GPU")
    options.out = (options.out or RESULTS).resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def tests(phase: Phase) -> list[str]:
    """Run the tests that need a GPU, then the sanitizers on small shapes."""
    forget(phase, GPU_TESTS, GPU_FAILURES)
    absent = missing()
    files = OF_KERNELS + (() if absent else OF_TRAINING)
    at_once = find_spec("xdist") is not None and not phase.rehearse
    code = phase.python(
        *TESTS, "--outcomes", str(phase.out), *(PROCESSES if at_once else ()), *files,
        limit=phase.left - SANITIZER_S,
    )  # fmt: skip
    if code not in (0, 1, None) or not (phase.out / GPU_TESTS).is_file():
        note(phase.out, f"pytest, exit code {code}", "error")
    if absent:
        print(f"not run without {', '.join(absent)}: {', '.join(OF_TRAINING)}", flush=True)
    sanitize(phase)
    said = gpu_tests(phase.out)
    wrong = said != "green" and not (phase.rehearse and said == "none ran")
    return [f"GPU tests: {said}"] if wrong else unless_done("pytest", code)


def kernels(phase: Phase) -> list[str]:
    """Time the operations."""
    forget(phase, GPU_KERNELS)
    where = ("--device", "cpu", "--rounds", "1") if phase.rehearse else ()
    code = phase.python(
        "benchmarks/kernels.py", "--sweep", "--budget", f"{phase.left - MARGIN_S:.0f}",
        "--out", str(phase.out / GPU_KERNELS), *where, limit=phase.left,
    )  # fmt: skip
    return unless_done("benchmarks/kernels.py", code)


def steps(phase: Phase) -> list[str]:
    """Time whole steps at both sizes, then take their memory apart."""
    if absent := missing():
        return [f"training steps: not measured without {', '.join(absent)}"]
    log = phase.out / GPU_MEMORY
    forget(phase, *GPU_STEPS.values(), GPU_MEMORY)
    sizes = {"paper": TINY} if phase.rehearse else STEPS
    how = SHORT if phase.rehearse else ("--rounds", "3")
    found = []
    for number, (label, size) in enumerate(sizes.items()):
        share = (phase.left - MEMORY_S * len(sizes)) / (len(sizes) - number)
        code = phase.python(
            "benchmarks/steps/train_step.py", "--device", "cuda", *size, *how,
            "--budget", f"{share - ENDING_S:.0f}", "--out", str(phase.out / GPU_STEPS[label]),
            limit=share,
        )  # fmt: skip
        found += unless_done(f"benchmarks/steps/train_step.py, {label}", code)
    for label, size in sizes.items():
        limit = min(phase.left, MEMORY_S)
        code = phase.python("benchmarks/steps/step_memory.py", *size, limit=limit, log=log)
        found += unless_done(f"benchmarks/steps/step_memory.py, {label}", code)
    print(log.read_text(), flush=True)
    return found


PHASES = {"tests": tests, "kernels": kernels, "steps": steps}
SUMMARY = "summary"
KNOWN = ", ".join((*PHASES, SUMMARY))


def missing() -> list[str]:
    """What training needs and this environment lacks."""
    return [name for name in NEEDED if find_spec(name) is None]


def forget(phase: Phase, *names: str) -> None:
    """Remove what an earlier run left: it would pass for what this one found."""
    for name in names:
        (phase.out / name).unlink(missing_ok=True)


def unless_done(what: str, code: int | None) -> list[str]:
    """A line if a program did not do all it should."""
    if code == 0:
        return []
    return [f"{what}: {'ended by the clock' if code is None else f'ended with exit code {code}'}"]


def sanitize(phase: Phase) -> None:
    """Small shapes under compute-sanitizer; what it says joins the outcomes of the tests."""
    script = "benchmarks/small_shapes.py"
    if phase.rehearse:
        code = phase.python(script, limit=phase.left)
        return note(phase.out, script, VERDICTS.get(code, "failed"))
    program = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=str(CUDA / "bin")
    )
    for tool in ("memcheck", "racecheck"):
        name, code = f"compute-sanitizer {tool}", None
        limit = min(phase.left, SANITIZER_S)
        if program is None:
            name += ", not installed"
        else:
            command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, script]
            # Without torch's cache every tensor has bounds of its own.
            code = finish(command, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, limit)
            name += f", not done after {limit:.0f} s" if code is None else f", exit code {code}"
        note(phase.out, name, VERDICTS.get(code, "nothing known"))


def note(folder: Path, name: str, outcome: str) -> None:
    """Add an outcome to those of the tests."""
    print(f"{name}: {outcome}", flush=True)
    path = folder / GPU_TESTS
    row = {"benchmark": "gpu_tests", "operation": name, "metric": outcome}
    write_rows(path, [*read_rows(path), row])


def finish(
    command: list[str], variables: dict[str, str], limit: float, log: Path | None = None
) -> int | None:
    """Exit code of a command in the checkout; one that takes too long is ended, None.

    What it prints goes to a file first if there is one, whatever becomes of it.
    """
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.pop("TRITON_INTERPRET", None)
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    with ExitStack() as stack:
        file = stack.enter_context(log.open("a")) if log else None
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment | variables, stdout=file, start_new_session=True
        )
        try:
            return process.wait(max(limit, 0.0))
        except subprocess.TimeoutExpired:
            return None
        finally:
            # What it started goes too: it would be on the GPU while the next one is timed.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
