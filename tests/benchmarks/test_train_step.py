import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import COLUMNS, write_rows

from .conftest import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
from peers.goals import LARGE, goals
from peers.implementations import IMPLEMENTATIONS
from peers.process import WORKER, Measured

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_step.py"
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


@pytest.mark.slow
def test_the_steps_of_a_gpu_take_the_same_steps_on_the_cpu():
    names = [n for n in IMPLEMENTATIONS["cuda"] if n not in IMPLEMENTATIONS["cpu"]]
    found = {}
    for name in names:
        one = IMPLEMENTATIONS["cuda"][name]
        if name.endswith(("graph", "compiled")):
            continue
        order = {
            "adapter": one.adapter, "package": one.package, "options": one.options,
            "inputs": one.inputs, "device": "cpu", "threads": 1, "warmup": 1, "steps": 3,
            "sizes": {"batch": 64, "d_in": 32, "d_sae": 128, "k": 4},
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(WORKER), json.dumps(order)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
    assert found.pop("bare product")["fvu"] is None
    assert set(found) >= {"lightsae torch adam", "lightsae definition"}
    for one in found.values():
        phases = sum(one[f"{phase}_ms"] for phase in ("forward", "backward", "update"))
        assert 0 < one["fastest_ms"] <= phases * 1.5
        assert one["fvu"] == pytest.approx(0.668, abs=0.005)


def measured(step_ms, memory=None):
    return Measured(step_ms=[step_ms], memory_over_state_mib=[memory] if memory else [])


def test_goals_are_met_missed_or_not_measured():
    results = {
        "bare product": measured(1.0), "lightsae": measured(2.0, 30.0),
        "lightsae reg1": measured(5.0), "torch dense compiled": measured(9.0, 80.0),
    }  # fmt: skip
    assert list(goals(results, LARGE)) == [
        "step of sparsify / lightsae graph >= 2.00: not measured",
        "step of torch dense compiled / lightsae >= 4.00: 4.50, met",
        "memory over state of lightsae / torch dense compiled <= 0.33: 0.38, missed",
        "step of lightsae / bare product <= 2.60: 2.00, met",
        "step of lightsae reg1 / bare product <= 4.20: 5.00, missed",
        "step of lightsae reg2 / bare product <= 4.20: not measured",
    ]
    assert list(goals(results, {"batch": 1})) == []


def test_a_sweep_visits_every_size(beside, monkeypatch):
    program = beside("train_step")
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
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, message, beside, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_step.py", *SMALL, *arguments])
    with pytest.raises(SystemExit) as caught:
        beside("train_step").parse()
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
