"""Run folders as a report finds and names them."""

from pathlib import Path

import pytest

from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.report.reading.run_inputs import choose_baseline, read_choices, read_runs
from lightsae.runs.sweep import SweepFile, choose_weight


def write(folder: Path, weight: float = 0.0, **about) -> Path:
    regularizer = {"name": "L1L2Ratio", "weight": weight} if weight else None
    EvaluationResult({"d_sae": 2, "regularizer": regularizer, **about}).save(folder)
    return folder


def test_a_folder_of_runs_is_all_of_them_that_were_evaluated(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "unfinished").mkdir()
    assert [run.name for run in read_runs([tmp_path / "sweep"])] == ["a", "b"]


def test_a_run_that_is_named_twice_is_there_once(tmp_path):
    run = write(tmp_path / "run")
    assert len(read_runs([run, run])) == 1


def test_names_tell_runs_apart(tmp_path):
    runs = [write(tmp_path / "one" / "run"), write(tmp_path / "two" / "run")]
    assert [run.name for run in read_runs(runs)] == ["one/run", "two/run"]


def test_a_run_without_an_evaluation_is_refused_in_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(LightsaeError, match=r"run: holds no evaluation.json.*lightsae test"):
        read_runs([tmp_path / "run"])


def test_a_config_that_is_no_yaml_is_named(tmp_path):
    run = write(tmp_path / "run")
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(LightsaeError, match=r"config.yaml cannot be read"):
        read_runs([run])


def test_the_baseline_is_the_first_run_without_a_regularizer(tmp_path):
    runs = read_runs([write(tmp_path / "reg", 0.1), write(tmp_path / "plain")])
    assert choose_baseline(runs, None) == 1
    assert choose_baseline(runs, Path("reg")) == 0
    assert choose_baseline(runs, tmp_path / "plain") == 1
    assert choose_baseline(runs[:1], None) == 0
    with pytest.raises(LightsaeError, match="baseline: other is none of the runs: reg, plain"):
        choose_baseline(runs, Path("other"))


def test_what_a_sweep_chose(tmp_path):
    assert read_choices([tmp_path]) == []
    file = SweepFile(tmp_path / "sweep.json")
    file.finish([((8, 32, None), choose_weight("Reg", {0.1: [0.02]}))])
    (told,) = read_choices([tmp_path / "nowhere", tmp_path])
    assert told.startswith("Reg, k = 8, d_sae = 32: λ = 0.1 is the largest that keeps")
    file.path.write_text("{")
    with pytest.raises(LightsaeError, match=r"sweep\.json cannot be read"):
        read_choices([tmp_path])
