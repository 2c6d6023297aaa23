import csv
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import COLUMNS, write_rows

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
        (["--only", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, message):
    done = train_step(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_rows_are_completed_with_machine_versions_and_date(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [{"benchmark": "b", "median": 1.5, "torch": "other"}])
    (row,) = read(path)
    assert (row["median"], row["torch"]) == ("1.5", "other")
    assert all(row[name] for name in ("date", "cpu", "cores", "python", "lightsae"))


def test_a_row_with_a_column_outside_the_schema_is_refused(tmp_path):
    with pytest.raises(ValueError, match="colour"):
        write_rows(tmp_path / "results.csv", [{"colour": "red"}])
