"""The kernel benchmark at tiny sizes in Triton's interpreter: errors are real, times are not."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.common import COLUMNS

from .conftest import BENCHMARKS

ROOT = BENCHMARKS.parent
SIZE = "B=2 d_in=8 d_sae=20 k=2"
OPERATIONS = {
    "encode", "encode+off_support_l1", "encode+l1_l2_ratio", "encode+l1_l2_ratio recompute",
    "sparse_decode",
    "sparse_residual", "nested_residual",
}  # fmt: skip


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, bare_environment):
    """One run with a sweep, in an environment with torch and triton and little else."""
    out = tmp_path_factory.mktemp("smoke") / "kernels.csv"
    before = {path: path.stat().st_mtime_ns for path in (BENCHMARKS / "results").iterdir()}
    paths = os.pathsep.join([bare_environment, str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, str(BENCHMARKS / "kernels.py"), "--device", "cpu", "--sweep"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--out", str(out)],
        capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    after = {path: path.stat().st_mtime_ns for path in (BENCHMARKS / "results").iterdir()}
    assert after == before
    return done.stdout, out


@pytest.fixture
def rows(smoke):
    with smoke[1].open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_operation_is_timed_in_every_implementation(rows):
    assert tuple(rows[0]) == COLUMNS
    timed = {(row["operation"], row["implementation"])
             for row in rows if row["metric"] == "time_p50" and row["sizes"] == SIZE}  # fmt: skip
    assert {("product", "torch"), ("copy", "torch")} <= timed
    assert {operation for operation, name in timed if name == "lightsae"} == OPERATIONS
    compared = OPERATIONS - {"encode+l1_l2_ratio recompute"}
    for name in ("reference", "reference, compiled"):
        assert {operation for operation, by in timed if by == name} == compared
    assert {name for operation, name in timed if operation == "encode"} >= {
        "product + relu + topk, compiled", "product + relu + topk (stand-in for sparsify)",
        "L2 blocks: product + relu + topk", "L2 blocks: product, nothing selected",
    }  # fmt: skip
    assert ("sparse_decode", "embedding_bag (stand-in for sparsify)") in timed
    for row in rows:
        if row["metric"] == "time_p50":
            assert 0 < float(row["low"]) <= float(row["median"]) <= float(row["high"])


@pytest.mark.slow
def test_a_swept_size_leaves_out_what_is_slow_to_prepare(rows):
    swept = {row["implementation"] for row in rows if row["sizes"] != SIZE}
    assert {row["sizes"] for row in rows} == {SIZE, "B=1 d_in=8 d_sae=20 k=2"}
    assert {"lightsae", "torch"} < swept
    assert not any("compiled" in name or "reference" in name for name in swept)


@pytest.mark.slow
def test_errors_are_told_beside_the_references_and_repeats_agree(rows):
    ratios = {(row["operation"], row["metric"]): float(row["median"])
              for row in rows if row["metric"].endswith("error_ratio")}  # fmt: skip
    assert ("encode", "values error_ratio") in ratios
    assert ("encode+l1_l2_ratio", "penalty error_ratio") in ratios
    assert ("sparse_decode", "x_hat error_ratio") in ratios
    assert all(ratio <= 2 for (_, metric), ratio in ratios.items() if "penalty" not in metric)
    differing = [row for row in rows if row["metric"] == "differing_repeats"]
    assert differing
    assert all((row["median"], row["unit"]) == ("0", "of 2") for row in differing)


@pytest.mark.slow
def test_no_figure_of_an_interpreter_passes_for_one_of_a_gpu(smoke, rows):
    text, out = smoke
    assert all((row["device"], row["gpu"]) == ("cpu", "") for row in rows)
    assert f"{SIZE} fp16, interpreted: no time is a speed" in text
    goals = text.partition(f"written to {out}\n")[2].splitlines()[1:]
    assert len(goals) == 14
    assert all(line.endswith("not measured") for line in goals)


@pytest.mark.slow
def test_its_csv_is_drawn(smoke, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "plot_kernels.py"), str(smoke[1])]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    pictures = [tmp_path / f"kernels_{name}.png" for name in ("implementations", "sweep")]
    assert done.stdout.split() == [str(picture) for picture in pictures]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.fixture
def script(beside, monkeypatch):
    """The module of the script, which shares its name with the folder of the kernels."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    module = beside("kernels")
    yield module
    sys.modules.pop("kernels", None)


def arguments(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu", "--dtype", "bf16"], "--dtype bf16 needs a GPU"),
        (["--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, message, script, monkeypatch, capsys):
    arguments(monkeypatch, *words)
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert message in capsys.readouterr().err


def test_without_a_gpu_nothing_is_measured(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments(monkeypatch)
    assert script.main() == 2
    assert capsys.readouterr().err.startswith("no GPU that torch can use: nothing measured")


def test_a_file_of_another_benchmark_is_not_drawn(beside, monkeypatch, capsys):
    path = BENCHMARKS / "results" / "shards.csv"
    arguments(monkeypatch, path)
    with pytest.raises(SystemExit, match="2"):
        beside("plot_kernels").main()
    assert f"{path} has no row with metric time_over_product" in capsys.readouterr().err


def test_one_implementation_that_fails_costs_the_others_nothing(script, beside):
    one = beside("operations.report").Measured(beside("operations.sizes").SMOKE, "fp16", "cpu")
    stopwatch = beside("operations.stopwatch").Stopwatch(torch.device("cpu"))
    case = beside("operations.inputs").Case

    def broken():
        raise RuntimeError("no such kernel\nand more")

    assert script.prepare(one, case("encode", "a", broken, 0, 0), stopwatch) is None
    assert script.prepare(one, case("encode", "b", lambda: None, 0, 0), stopwatch) is not None
    assert one.failed == {("encode", "a"): "RuntimeError: no such kernel"}


def test_an_operation_that_is_wrong_is_not_timed(script, beside, monkeypatch, tmp_path):
    correctness, names = beside("operations.correctness"), beside("operations.names")
    checks = [correctness.Check("encode", "values", 1.0, 1e-3, 0, 2)]
    monkeypatch.setattr(script, "checks", lambda *_: checks)
    rows, timed = timed_cases(script, beside, monkeypatch, tmp_path)
    assert "encode" not in timed[names.OURS]
    assert names.DECODE in timed[names.OURS]
    assert "encode" in timed["b"]
    reason = "not measured: not right: error of values is 1e+03 times the reference's"
    assert {row["operation"] for row in rows if row["metric"] == reason} == {"encode"}


def test_nothing_of_ours_is_timed_where_the_checks_fail(script, beside, monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(script, "checks", broken)
    _, timed = timed_cases(script, beside, monkeypatch, tmp_path)
    assert timed.keys() == {"b"}


def test_a_case_is_in_the_file_before_the_next_is_prepared(script, beside, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "checks", lambda *_: [])
    _, timed = timed_cases(script, beside, monkeypatch, tmp_path)
    assert len(timed["b"]) == 2


def timed_cases(script, beside, monkeypatch, tmp_path):
    """Rows of a run of four cases that do nothing, and what was timed, by implementation."""
    Case, names = beside("operations.inputs").Case, beside("operations.names")
    out = tmp_path / "kernels.csv"

    def cases(*_, **__):
        yield Case("encode", "b", lambda: None, 0, 0)
        assert "time_p50" in out.read_text()
        yield Case("encode", names.OURS, lambda: None, 0, 0)
        yield Case(names.DECODE, names.OURS, lambda: None, 0, 0)
        yield Case(names.DECODE, "b", lambda: None, 0, 0)

    monkeypatch.setattr(script, "cases", cases)
    arguments(monkeypatch, "--device", "cpu", "--rounds", "1", "--out", out)
    script.main()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    timed = {}
    for row in rows:
        if row["metric"] == "time_p50":
            timed.setdefault(row["implementation"], set()).add(row["operation"])
    return rows, timed
