"""make gpu: what it does in which order, and what it says where something is missing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

from .conftest import BENCHMARKS

STEPS = ["step.py", "memory.py"] * 2


@pytest.fixture
def calls(monkeypatch):
    """A GPU that is not there: commands are noted, and end with the codes given here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    noted, codes = (
        [],
        dict.fromkeys(("pytest", "kernels.py", "memcheck", "racecheck", "step.py", "memory.py"), 0),
    )

    def finish(command, variables, limit):
        name = next(name for name in codes if any(name in word for word in command))
        noted.append(name)
        return codes[name]

    monkeypatch.setattr(gpu, "finish", finish)
    monkeypatch.setattr(gpu.shutil, "which", lambda *_, **__: "compute-sanitizer")
    return noted, codes


def test_without_a_gpu_it_says_so_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 2
    said = capsys.readouterr()
    assert said.err == "no GPU that torch can use: nothing tested, nothing measured\n"
    assert said.out == ""


def test_tests_come_first_and_times_last(calls, capsys):
    noted, _ = calls
    assert gpu.main() == 0
    assert noted == ["pytest", "memcheck", "racecheck", "kernels.py", *STEPS]
    assert "memcheck: clean" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "said"), [(1, "red"), (5, "red"), (None, "not done after 300 s")])
def test_nothing_is_timed_unless_the_tests_are_green(code, said, calls, capsys):
    noted, codes = calls
    codes["pytest"] = code
    assert gpu.main() == 1
    assert noted == ["pytest"]
    assert capsys.readouterr().err == f"GPU tests {said}: nothing measured\n"


def test_a_finding_of_a_sanitizer_fails_after_the_times(calls, capsys):
    noted, codes = calls
    codes["racecheck"] = 9
    assert gpu.main() == 1
    assert noted[-5:] == ["kernels.py", *STEPS]
    assert "compute-sanitizer racecheck ended with exit code 9" in capsys.readouterr().err


def test_a_sanitizer_that_was_not_done_is_not_called_clean(calls, capsys):
    _, codes = calls
    codes["memcheck"] = None
    assert gpu.main() == 0
    assert "memcheck: not done after 45 s, so nothing is known" in capsys.readouterr().out


def test_a_sanitizer_leaves_the_times_their_share(calls, monkeypatch, capsys):
    noted, _ = calls
    monkeypatch.setattr(gpu, "WHOLE_S", 160.0)
    assert gpu.main() == 0
    assert noted == ["pytest", "kernels.py", *STEPS]
    assert "memcheck: no time for it, so nothing is known" in capsys.readouterr().out


def test_a_step_that_was_not_measured_fails(calls, capsys):
    _, codes = calls
    codes["step.py"] = 1
    assert gpu.main() == 1
    assert "benchmarks/train_step.py, large: not everything was" in capsys.readouterr().err


def test_a_machine_that_cannot_train_is_told(calls, monkeypatch, capsys):
    noted, _ = calls
    find = gpu.find_spec
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "h5py" else find(name))
    assert gpu.main() == 0
    assert noted[-1] == "kernels.py"
    assert "training step: not measured without h5py\n" in capsys.readouterr().out


def test_without_time_for_a_step_it_says_so(calls, capsys):
    assert gpu.training_step("paper", 10.0) == []
    assert "training step, paper: no time for it" in capsys.readouterr().out


def test_a_machine_without_the_cuda_toolkit_is_told(calls, monkeypatch, capsys):
    noted, _ = calls
    monkeypatch.setattr(gpu.shutil, "which", lambda *_, **__: None)
    assert gpu.main() == 0
    assert noted == ["pytest", "kernels.py", *STEPS]
    assert "memcheck: compute-sanitizer not found" in capsys.readouterr().out


@pytest.mark.parametrize("code", [1, None], ids=["failed", "not done"])
def test_times_that_failed_fail(code, calls):
    _, codes = calls
    codes["kernels.py"] = code
    assert gpu.main() == 1


def test_a_command_that_takes_too_long_is_ended():
    assert gpu.finish([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.2) is None


def test_what_a_command_started_ends_with_it(tmp_path):
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


@pytest.mark.slow
def test_gpu_tests_are_collected_where_little_is_installed(bare_environment):
    root = BENCHMARKS.parent
    paths = os.pathsep.join([bare_environment, str(root), str(root / "kernels")])
    done = subprocess.run(
        [sys.executable, *gpu.TESTS, "--collect-only", "-p", "no:hypothesispytest"], cwd=root,
        timeout=120, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fused/test_select.py::test_ties_go_to_the_lowest_index[cuda-bf16]" in done.stdout


@pytest.mark.slow
def test_small_shapes_reach_every_operation():
    program = "import small_shapes; small_shapes.main([(1, 5, 9, 1)])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BENCHMARKS, timeout=120, capture_output=True,
        text=True, env=os.environ | {"TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.stdout == "24 calls at ragged shapes on cpu\n", done.stderr
