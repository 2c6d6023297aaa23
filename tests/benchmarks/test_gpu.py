"""make gpu: phases, what each runs and leaves, and what is said where something is missing."""

import csv
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from lightsae_kernels import fused

from benchmarks import common
from benchmarks.common import GPU_KERNELS, GPU_STEPS, GPU_SUMMARY, GPU_TESTS, write_rows

from .conftest import BENCHMARKS

ROOT = BENCHMARKS.parent
MEASURE_STEPS = ["train_step.py", "train_step.py", "step_memory.py", "step_memory.py"]


@pytest.fixture
def gpu(beside, monkeypatch):
    """The program, on a GPU that is not there."""
    # Imported while there seems to be one, kernels would not be interpreted, in later tests either.
    for kernels in iter_modules(fused.__path__, f"{fused.__name__}."):
        import_module(kernels.name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    module = beside("gpu")
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: "compute-sanitizer")
    known = common.machine, beside("common").machine
    for one in known:
        one.cache_clear()
    yield module
    for one in known:
        one.cache_clear()


@pytest.fixture
def calls(gpu, monkeypatch):
    """Commands are noted, and end with the codes given here; so do tests with these outcomes."""
    codes = dict.fromkeys(("pytest", "kernels.py", "memcheck", "racecheck", *MEASURE_STEPS), 0)
    outcomes = {"test_a": "passed", "test_b": "passed"}
    noted = []

    def finish(command, variables, limit, log=None):
        name = next(name for name in codes if any(Path(word).name == name for word in command))
        noted.append(name)
        if name == "pytest":
            folder = Path(command[command.index("--outcomes") + 1])
            if outcomes:
                write_outcomes(folder, outcomes)
        if log is not None:
            log.write_text("a table\n")
        return codes[name]

    monkeypatch.setattr(gpu, "finish", finish)
    return noted, codes, outcomes


def write_outcomes(folder, outcomes):
    rows = [{"benchmark": "gpu_tests", "operation": name, "metric": outcome}
            for name, outcome in outcomes.items()]  # fmt: skip
    write_rows(folder / GPU_TESTS, rows)


def run(gpu, monkeypatch, folder, *phases):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *phases, "--out", str(folder)])
    return gpu.main()


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_without_a_gpu_it_says_so_and_fails(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(gpu, monkeypatch, tmp_path) == 2
    said = capsys.readouterr()
    assert said.err == "no GPU that torch can use: nothing tested, nothing measured\n"
    assert said.out == ""


def test_a_summary_needs_no_gpu(gpu, calls, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_outcomes(tmp_path, {"test_a": "failed"})
    assert run(gpu, monkeypatch, tmp_path, "summary") == 0
    assert "GPU tests: 1 failed\n  failed: test_a\n" in capsys.readouterr().out
    assert calls[0] == []


def test_phases_come_in_turn_and_the_summary_last(gpu, calls, monkeypatch, tmp_path, capsys):
    noted, *_ = calls
    assert run(gpu, monkeypatch, tmp_path) == 0
    assert noted == ["pytest", "memcheck", "racecheck", "kernels.py", *MEASURE_STEPS]
    summary = capsys.readouterr().out.partition("== summary\n")[2]
    assert summary == (tmp_path / GPU_SUMMARY).read_text()
    assert "GPU tests: 4 passed\n" in summary


@pytest.mark.parametrize(
    ("phase", "programs"),
    [
        ("tests", ["pytest", "memcheck", "racecheck"]),
        ("kernels", ["kernels.py"]),
        ("steps", MEASURE_STEPS),
    ],
)
def test_a_phase_runs_alone(phase, programs, gpu, calls, monkeypatch, tmp_path):
    noted, *_ = calls
    assert run(gpu, monkeypatch, tmp_path, phase) == 0
    assert noted == programs


def test_a_phase_leaves_what_the_others_found_and_tells_of_it(
    gpu, calls, monkeypatch, tmp_path, capsys
):
    step = {"benchmark": "train_step", "device": "cuda", "metric": "step_time"}
    rows = [step | {"implementation": name, "median": ms}
            for name, ms in (("lightsae", "5.0"), ("bare product", "2.5"))]  # fmt: skip
    write_rows(tmp_path / GPU_STEPS["large"], rows)
    write_rows(tmp_path / GPU_KERNELS, [{"benchmark": "kernels", "metric": "of an older run"}])
    run(gpu, monkeypatch, tmp_path, "kernels")
    said = capsys.readouterr().out
    assert not (tmp_path / GPU_KERNELS).exists()
    (goal,) = [line for line in said.splitlines() if "step of lightsae / bare product" in line]
    assert goal.split()[-3:] == ["2.60", "2.00", "yes"]
    (goal,) = [line for line in said.splitlines() if "large  encode / bare product" in line]
    assert goal.endswith("not measured")
    assert "GPU tests: not run" in said
    assert "measured while the GPU tests were: not run" in said


@pytest.mark.parametrize(
    ("outcome", "told"), [("failed", "1 red"), ("error", "1 red"), ("not reached", "1 not reached")]
)
def test_what_is_measured_tells_that_tests_are_not_green(
    outcome, told, gpu, calls, monkeypatch, tmp_path, capsys
):
    noted, _, outcomes = calls
    outcomes["test_b"] = outcome
    assert run(gpu, monkeypatch, tmp_path) == 1
    assert noted[-5:] == ["kernels.py", *MEASURE_STEPS]
    said = capsys.readouterr().out
    assert f"\nGPU tests: {told}\n" in said
    assert f"  {outcome}: test_b\n" in said
    write_rows(tmp_path / "later.csv", [{"device": "cuda"}, {"device": "cpu"}])
    assert [row["gpu_tests"] for row in read(tmp_path / "later.csv")] == [told, ""]


def test_outcomes_of_another_version_say_nothing(tmp_path):
    write_rows(tmp_path / GPU_TESTS, [{"metric": "passed", "commit": "0123456789ab"}])
    write_rows(tmp_path / "later.csv", [{"device": "cuda"}])
    assert read(tmp_path / "later.csv")[0]["gpu_tests"] == "not run"


@pytest.mark.parametrize("code", [3, None], ids=["internal error", "ended while collecting"])
def test_a_test_run_that_breaks_down_is_red_whatever_the_sanitizers_say(
    code, gpu, calls, monkeypatch, tmp_path, capsys
):
    _, codes, outcomes = calls
    codes["pytest"] = code
    outcomes.clear()
    assert run(gpu, monkeypatch, tmp_path, "tests") == 1
    assert f"  error: pytest, exit code {code}\n" in capsys.readouterr().out
    assert common.gpu_tests(tmp_path) == "1 red"


@pytest.mark.parametrize(
    ("code", "outcome", "says"),
    [
        (9, "failed", "exit code 9"),
        (None, "nothing known", "not done after 45 s"),
        (1, "nothing known", "exit code 1"),
    ],
)
def test_only_a_finding_of_a_sanitizer_is_red(
    code, outcome, says, gpu, calls, monkeypatch, tmp_path
):
    _, codes, _ = calls
    codes["racecheck"] = code
    assert run(gpu, monkeypatch, tmp_path, "tests") == (1 if outcome == "failed" else 0)
    rows = {row["operation"]: row["metric"] for row in read(tmp_path / GPU_TESTS)}
    assert rows["compute-sanitizer memcheck, exit code 0"] == "passed"
    assert rows[f"compute-sanitizer racecheck, {says}"] == outcome


def test_a_machine_without_the_cuda_toolkit_is_told(gpu, calls, monkeypatch, tmp_path, capsys):
    noted, *_ = calls
    monkeypatch.setattr(gpu.shutil, "which", lambda *_, **__: None)
    assert run(gpu, monkeypatch, tmp_path, "tests") == 0
    assert noted == ["pytest"]
    assert "compute-sanitizer memcheck, not installed: nothing known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "code", "told"),
    [
        ("kernels.py", 1, "benchmarks/kernels.py: ended with exit code 1"),
        ("kernels.py", None, "benchmarks/kernels.py: ended by the clock"),
        ("train_step.py", 1, "benchmarks/steps/train_step.py, large: ended with exit code 1"),
        ("step_memory.py", None, "benchmarks/steps/step_memory.py, paper: ended by the clock"),
    ],
)
def test_times_that_failed_fail(program, code, told, gpu, calls, monkeypatch, tmp_path, capsys):
    _, codes, _ = calls
    codes[program] = code
    assert run(gpu, monkeypatch, tmp_path) == 1
    assert told in capsys.readouterr().out


def test_a_machine_that_cannot_train_tests_and_times_kernels(
    gpu, calls, monkeypatch, tmp_path, capsys
):
    noted, *_ = calls
    find = gpu.find_spec
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "h5py" else find(name))
    assert run(gpu, monkeypatch, tmp_path) == 1
    assert noted == ["pytest", "memcheck", "racecheck", "kernels.py"]
    said = capsys.readouterr().out
    assert "not run without h5py: tests/sae/test_compile.py" in said
    assert "training steps: not measured without h5py\n" in said


def test_programs_take_the_options_that_they_get(gpu, calls, beside, monkeypatch, tmp_path):
    commands, finish = [], gpu.finish
    # The script of the kernels sets it for good.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "finish", lambda *a: commands.append(a[0]) or finish(*a))
    run(gpu, monkeypatch, tmp_path, "kernels", "steps")
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    budgets = []
    for command in commands:
        monkeypatch.setattr(sys, "argv", command[1:])
        options = beside(module_of(command[1])).parse()
        budgets.append(getattr(options, "budget", gpu.MEMORY_S))
    sys.modules.pop("kernels", None)
    kernels, *steps = budgets
    assert len(steps) == 4
    # The fake programs took no time: the second size may have what the first left.
    assert kernels + gpu.MARGIN_S <= gpu.PHASE_S
    assert steps[1] + gpu.ENDING_S + sum(steps[2:]) <= gpu.PHASE_S
    assert steps[0] == pytest.approx(steps[1] / 2, abs=10)


def module_of(script: str) -> str:
    return ".".join(Path(script).relative_to("benchmarks").with_suffix("").parts)


def test_the_options_are_checked(gpu, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(gpu, monkeypatch, tmp_path, "everything")
    assert "everything: not one of tests, kernels, steps, summary\n" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(gpu, monkeypatch, tmp_path, "--rehearse")
    assert "--rehearse needs --out, and a machine without a GPU" in capsys.readouterr().err


def test_a_command_that_takes_too_long_is_ended(gpu):
    assert gpu.finish([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.2) is None


def test_what_a_command_started_ends_with_it(gpu, tmp_path):
    pid = tmp_path / "pid"
    assert gpu.finish(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], {}, 0.5) is None
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    deadline = time.monotonic() + 10  # the kernel ends a killed process when it next runs
    while time.monotonic() < deadline and running(stat):
        time.sleep(0.01)
    assert not running(stat)


def running(stat: Path) -> bool:
    try:
        return stat.read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_test_that_needs_a_gpu_is_run(gpu):
    run_there = [ROOT / name for name in (*gpu.OF_KERNELS, *gpu.OF_TRAINING)]
    marked = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if "pytest.mark.gpu" in path.read_text() and path.parent.name != "benchmarks"
    ]
    assert marked
    for path in marked:
        assert any(path.is_relative_to(there) for there in run_there), path


def test_the_environment_of_the_rehearsal_has_what_is_needed_and_no_command_line(gpu):
    lines = (BENCHMARKS / "phases" / "requirements.txt").read_text().splitlines()
    names = {re.split("[=<]", line)[0] for line in lines}
    assert set(gpu.NEEDED) < names
    assert "jsonargparse" not in names


def rehearse(phase, folder, environment):
    """The phase at tiny sizes, in a process where packages are hidden."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), phase, "--rehearse", "--out", folder]
    variables = {"PYTHONPATH": environment, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=120,
        env=os.environ | variables,
    )  # fmt: skip


@pytest.mark.slow
def test_gpu_tests_and_every_operation_run_where_little_is_installed(gpu_machine, tmp_path):
    done = rehearse("tests", tmp_path, gpu_machine)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["operation"]: row["metric"] for row in read(tmp_path / GPU_TESTS)}
    assert rows.pop("benchmarks/small_shapes.py") == "passed"
    assert "24 calls at ragged shapes on cpu" in done.stdout
    assert set(rows.values()) == {"skipped"}
    for name in (
        "kernels/fused/test_select.py::test_ties_go_to_the_lowest_index[cuda-bf16]",
        "training/test_cuda_graph.py::test_a_graph_on_the_gpu_ends_in_the_same_bits",
    ):
        assert f"tests/{name}" in rows


@pytest.mark.slow
def test_steps_of_a_gpu_run_where_little_is_installed(gpu_machine, tmp_path, beside):
    done = rehearse("steps", tmp_path, gpu_machine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "l1_l2_ratio" in (tmp_path / "step_memory_cuda.txt").read_text()
    rows = read(tmp_path / GPU_STEPS["paper"])
    assert {(row["device"], row["gpu"]) for row in rows} == {("cpu", "")}
    measured = beside("peers.implementations")._ON_CUDA
    value = {(row["implementation"], row["metric"]): row["median"] for row in rows}
    for name in measured:
        assert float(value[name, "step_time"]) > 0
    # All start equal and take the same steps, however they are computed.
    found = {name: float(value[name, "fvu_after_steps"])
             for name in measured if name != "bare product"}  # fmt: skip
    assert found == pytest.approx(dict.fromkeys(found, found["lightsae definition"]), abs=0.005)
    versions = {row["implementation"]: row["implementation_version"] for row in rows}
    assert versions["lightsae"] == "checkout"
    assert ("sparsify", "not measured: its environment is not there") in value
    goals = [line for line in done.stdout.splitlines() if " of lightsae / bare product" in line]
    assert goals
    assert all(line.endswith("not measured") for line in goals)
