import csv
import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import COLUMNS, write_rows

from .conftest import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
from peers.goals import goals
from peers.process import Measured

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "steps" / "train_step.py"
SMALL = ["--batch", "64", "--d_in", "16", "--d_sae", "64", "--k", "4"]
BRIEF = ["--threads", "1", "--rounds", "1", "--warmup", "1", "--steps", "2"]


def train_step(*arguments):
    command = [sys.executable, str(SCRIPT), *SMALL, *BRIEF, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_this_package_and_sparse_gradients_in_plain_torch_take_the_same_steps(tmp_path):
    names = ["lightsae", "torch sparse"]
    out = tmp_path / "results.csv"
    done = train_step("--out", out, "--only", *names)
    assert done.returncode == 0, done.stderr
    rows = read(out)
    assert tuple(rows[0]) == COLUMNS
    assert {row["implementation"] for row in rows} == set(names)
    value = {(row["implementation"], row["metric"]): float(row["median"]) for row in rows}
    assert all(value[name, "step_time"] > 0 for name in names)
    assert all(value[name, "memory_over_start"] < 100 for name in names)
    ours, plain = (value[name, "fvu_after_steps"] for name in names)
    assert plain == pytest.approx(ours, rel=1e-4)


def measured(step_ms, memory=None):
    return Measured(step_ms=[step_ms], memory_over_state_mib=[memory] if memory else [])


def test_goals_are_met_missed_or_not_measured():
    results = {
        "bare product": measured(1.0), "lightsae": measured(2.0, 30.0),
        "lightsae reg1": measured(5.0), "torch dense compiled": measured(9.0, 80.0),
    }  # fmt: skip
    assert list(goals(results, "large")) == [
        ("large", "step of sparsify / lightsae", ">= 2.00", "not measured", ""),
        ("large", "step of torch dense compiled / lightsae", ">= 4.00", "4.50", "yes"),
        ("large", "memory over state of lightsae / torch dense compiled", "<= 0.33", "0.38", "no"),
        ("large", "step of lightsae / bare product", "<= 2.60", "2.00", "yes"),
        ("large", "step of lightsae reg1 / bare product", "<= 4.20", "5.00", "no"),
        ("large", "step of lightsae reg2 / bare product", "<= 4.20", "not measured", ""),
    ]
    assert len(list(goals(results, "paper"))) == 3


@pytest.fixture
def program(beside, monkeypatch, tmp_path):
    """The program about to measure three implementations, and what it would run."""
    module, runs = beside("steps.train_step"), []
    names = ["torch dense", "torch sparse", "lightsae"]
    out = tmp_path / "results.csv"
    words = [*SMALL, "--rounds", "2", "--out", str(out), "--only", *names, "--budget", "90"]
    monkeypatch.setattr(sys, "argv", ["train_step.py", *words])
    clock = iter(range(0, 10_000, 20))  # each run takes 20 s
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def run(names, options, limit):
        runs.append((names, limit, read(out) if out.exists() else []))
        return [{"version": "1", "torch": "2", "step_ms": 3.0}], 0.0

    monkeypatch.setattr(module, "run", run)
    return module, runs, out


OTHERS = ("throughput", "cpu_elsewhere")


def by_metric(rows):
    return {row["implementation"]: row["metric"] for row in rows if row["metric"] not in OTHERS}


def test_rows_are_written_as_they_come(program):
    module, runs, out = program
    assert module.main() == 0
    assert [names for names, *_ in runs[:3]] == [["torch dense"], ["torch sparse"], ["lightsae"]]
    assert by_metric(runs[1][2]) == {"torch dense": "step_time"}
    assert by_metric(runs[2][2]).keys() == {"torch dense", "torch sparse"}
    assert by_metric(read(out)).keys() == {"torch dense", "torch sparse", "lightsae"}
    # The clock ended it in the second round; no process may take more than a third of all.
    assert [limit for _, limit, _ in runs] == [30, 30, 30, 10]


def test_a_later_round_that_is_not_done_takes_nothing_away(program, monkeypatch):
    module, runs, out = program
    run = module.run

    def slow(*arguments):
        if len(runs) == 3:
            raise TimeoutError("not done after 10 s")
        return run(*arguments)

    monkeypatch.setattr(module, "run", slow)
    assert module.main() == 0
    assert set(by_metric(read(out)).values()) == {"step_time"}


def test_what_was_not_reached_in_time_is_listed(program, monkeypatch):
    module, _, out = program
    run = module.run

    def slow(names, options, limit):
        found = run(names, options, limit)
        if names == ["torch sparse"]:
            raise TimeoutError("not done after 30 s")
        return found

    monkeypatch.setattr(module, "run", slow)
    monkeypatch.setitem(module.COUNTS, "rounds", 1)
    clock = iter([0, 30, 60, 100, 140])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert module.main() == 1
    assert by_metric(read(out)) == {
        "torch dense": "step_time",
        "torch sparse": "not measured: not done after 30 s",
        "lightsae": "not measured: no time left of --budget 90",
    }


def test_a_process_that_takes_too_long_is_ended(beside, monkeypatch):
    process = beside("peers.process")
    monkeypatch.setattr(process, "interpreter", lambda *_: "sleep")
    monkeypatch.setattr(process, "WORKER", "60")
    monkeypatch.setattr(process.json, "dumps", lambda _: "60")
    options = SimpleNamespace(device="cpu", runs_on="cpu", sizes={}, threads=1, warmup=1, steps=1)
    with pytest.raises(TimeoutError, match=r"not done after 0 s"):
        process.run(["lightsae"], options, 0.1)


@pytest.fixture
def peers(monkeypatch):
    """Adapters and the worker, as they import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    return importlib.import_module


@pytest.mark.parametrize("options", [{}, {"regularizer": "L1L2Ratio"}, {"one_pass": True}])
def test_a_step_that_is_not_the_definitions_is_not_timed(options, peers, monkeypatch):
    own, Sizes = peers("own"), peers("adapter").Sizes
    sizes, sample = Sizes(16, 8, 32, 2), torch.randn(16, 8)
    own.build(sizes, sample, bf16=True, checked=True, **options)
    right = own.objective
    monkeypatch.setattr(
        own, "objective", lambda *a, **o: (found := right(*a, **o))._replace(loss=1.2 * found.loss)
    )
    with pytest.raises(RuntimeError, match=r"not timed: loss is (20|19).* off the definition"):
        own.build(sizes, sample, bf16=True, checked=True, **options)
    own.build(sizes, sample, bf16=True, **options)


def test_gradients_that_are_not_the_definitions_are_named(peers, monkeypatch):
    own, Sizes = peers("own"), peers("adapter").Sizes
    right = own.objective

    def wrong(sae, *a, **o):
        found = right(sae, *a, **o)
        off = sae.b_dec.sum() - sae.b_dec.detach().sum()
        return found._replace(loss=found.loss + off)

    monkeypatch.setattr(own, "objective", wrong)
    with pytest.raises(RuntimeError, match=r"not timed: b_dec is .* off the definition"):
        own.build(Sizes(16, 8, 32, 2), torch.randn(16, 8), bf16=True, checked=True)


def test_what_is_not_installed_is_a_checkout(peers):
    worker = peers("worker")
    assert worker.version_of("torch") == torch.__version__.partition("+")[0]
    assert worker.version_of("nothing-of-this-name") == "checkout"


def test_a_sweep_visits_every_size(beside, monkeypatch):
    program = beside("steps.train_step")
    monkeypatch.setattr(sys, "argv", ["train_step.py", *SMALL, "--sweep", "d_sae", "32", "64"])
    options = program.parse()
    sizes = [point.sizes for point in program.points(options)]
    assert [size["d_sae"] for size in sizes] == [32, 64]
    assert all(size["batch"] == 64 and size["k"] == 4 for size in sizes)
    assert options.out.name == "train_step_cpu_d_sae.csv"


def test_a_library_without_an_environment_is_named_and_skipped(tmp_path):
    done = train_step("--only", "sparsify", "--peers", tmp_path, "--out", tmp_path / "results.csv")
    assert done.returncode == 0, done.stderr
    assert "not measured: sparsify" in done.stdout
    assert str(tmp_path) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "65"], "--k 65 is larger than --d_sae 64"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--only", "nothing"], "--only nothing: not one of lightsae, lightsae reg1"),
        (["--sweep", "width", "3"], "--sweep width: not one of batch, d_in, d_sae, k"),
        (["--sweep", "d_sae"], "--sweep d_sae: expected sizes of at least 1, got []"),
        (["--sweep", "d_sae", "512", "-1"], "--sweep"),
        (["--sweep", "d_sae", "512", "2"], "--k 4 is larger than --d_sae 2"),
        (["--device", "cuda"], "--device cuda: there is no GPU that torch can use"),
        (["--rehearse"], "--rehearse needs --device cuda and --out"),
        (["--rehearse", "--device", "cuda"], "--rehearse needs --device cuda and --out"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, message, beside, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_step.py", *SMALL, *arguments])
    with pytest.raises(SystemExit) as caught:
        beside("steps.train_step").parse()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_rows_are_completed_with_machine_versions_and_date(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [{"benchmark": "b", "median": 1.5, "torch": "other"}])
    (row,) = read(path)
    assert (row["median"], row["torch"]) == ("1.5", "other")
    assert all(row[name] for name in ("date", "cpu", "cores", "python", "lightsae"))


def test_a_row_with_a_column_outside_the_schema_is_refused(tmp_path):
    with pytest.raises(ValueError, match="colour"):
        write_rows(tmp_path / "results.csv", [{"colour": "red"}])
