"""A run folder evaluated from Python: the figures and the labels of `lightsae test`."""

from pathlib import Path

import pytest

from lightsae.activations import ActivationDataModule
from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.runs import evaluate_run

from ..training.helpers import make_data, write_config, write_shards

REGULARIZER = {"class_path": "lightsae.sae.L1L2Ratio", "init_args": {"weight": 0.05}}


@pytest.fixture
def data(tmp_path: Path) -> ActivationDataModule:
    found = make_data(write_shards(tmp_path / "shards"))
    found.setup("test")
    return found


@pytest.mark.parametrize("regularizer", [None, REGULARIZER], ids=["baseline", "regularizer"])
def test_it_is_what_test_writes(
    regularizer: object, data: ActivationDataModule, tmp_path: Path
) -> None:
    changes = {"model__init_args__regularizer": regularizer}
    config = write_config(tmp_path / "config.yaml", data.path, **changes)
    words = ["--config", str(config), "--run_dir", str(tmp_path / "run"), "--seed_everything", "3"]
    assert main(["fit", *words]) == 0
    assert main(["test", *words, "--evaluation.probes", "false"]) == 0
    by_command = EvaluationResult.load(tmp_path / "run")
    result = evaluate_run(tmp_path / "run", data, ["own_input"], show_progress=False)
    assert result.about == EvaluationResult.load(tmp_path / "run").about
    assert {**result.about, "date": None} == {**by_command.about, "date": None}
    assert result.about["seed"] == 3
    shared = {name: by_command.scalars[name] for name in result.scalars}
    assert result.scalars == pytest.approx(shared, rel=1e-6)
    assert set(by_command.scalars) - set(shared) <= {"loss", "reconstruction", "penalty"}


def test_a_folder_without_a_run_is_named(data: ActivationDataModule, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"nowhere/config.yaml is missing"):
        evaluate_run(tmp_path / "nowhere", data, ["own_input"])
