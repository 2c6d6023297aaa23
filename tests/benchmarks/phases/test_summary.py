"""The summary reads back what was measured and tells the goals of it."""

import pytest

from benchmarks.common import GPU_KERNELS, GPU_STEPS, GPU_TESTS, write_rows

from ..test_operations import measured


@pytest.fixture
def kernels(beside):
    """Made-up measurements of one size, with errors."""
    Check, names = beside("operations.correctness").Check, beside("operations.names")
    checks = [
        Check("encode", "values", 3e-3, 2e-3, 1, 10),
        Check("encode+off_support_l1", "penalty", 3e-3, 0.0, 0, 10),
        Check("sparse_decode", "x_hat", 1e-3, 2e-3, 0, 10),
    ]
    times = {
        names.BARE: 2.0, names.COPY: 1.0, ("encode", "lightsae"): 2.6,
        ("encode+off_support_l1", "lightsae"): 3.4, ("sparse_decode", "lightsae"): 1.4,
    }  # fmt: skip
    one = measured(beside, "large", times, checks)
    one.missing["encode", "reference"] = "does not fit in 80 GiB"
    return one


def test_goals_of_kernels_are_those_that_were_told_when_they_were_measured(
    kernels, beside, tmp_path
):
    goals = beside("operations.goals")
    write_rows(tmp_path / GPU_KERNELS, beside("operations.report").csv_rows([kernels]))
    lines = list(beside("phases.summary").summary(tmp_path))
    expected = goals.table([kernels])
    assert sum(row[4] in ("yes", "no") for row in expected) == 7
    shown = [line.split() for line in lines]
    assert all(" ".join(row).split() in shown for row in expected)
    assert "not measured: does not fit in 80 GiB: encode reference" in "\n".join(lines)


def test_what_stands_in_for_a_library_is_named(beside, tmp_path):
    step = {"benchmark": "train_step", "device": "cuda", "metric": "step_time"}
    times = {"lightsae graph": "2", "torch sparse (stand-in for sparsify)": "5"}
    rows = [step | {"implementation": name, "median": ms} for name, ms in times.items()]
    write_rows(tmp_path / GPU_STEPS["paper"], rows)
    (line,) = [line for line in beside("phases.summary").summary(tmp_path) if "stand-in" in line]
    assert line.split("  ")[1] == ("step of torch sparse (stand-in for sparsify) / lightsae graph")
    assert line.split()[-3:] == ["2.00", "2.50", "yes"]


def test_figures_of_a_rehearsal_meet_no_goal(beside, tmp_path):
    step = {"benchmark": "train_step", "device": "cpu", "metric": "step_time"}
    rows = [step | {"implementation": name, "median": "1"} for name in ("lightsae", "bare product")]
    write_rows(tmp_path / GPU_STEPS["large"], rows)
    lines = list(beside("phases.summary").summary(tmp_path))
    assert sum(line.endswith("not measured") for line in lines) == 23


def test_long_lists_are_cut_short_but_counted(beside, tmp_path):
    rows = [{"operation": f"test_{n}", "metric": "not reached"} for n in range(30)]
    write_rows(tmp_path / GPU_TESTS, rows)
    lines = list(beside("phases.summary").summary(tmp_path))
    assert "GPU tests: 30 not reached" in lines
    assert "  not reached: 10 more, see gpu_tests.csv" in lines
