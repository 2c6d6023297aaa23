"""`lightsae validate` and `test` of a run with other settings than the configuration given."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightsae.cli import main
from lightsae.evaluation import EvaluationResult

NO_PROBES = ("--evaluation.probes", "false")
REG1 = ("--model.regularizer", "OffSupportL1", "--model.regularizer.weight", "0.25")


@pytest.fixture(scope="module")
def reseeded(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with Reg 1 and seed 3, both given on the command line."""
    folder = tmp_path_factory.mktemp("runs") / "reseeded"
    words = ["fit", "--config", str(config), "--run_dir", str(folder), "--seed_everything", "3"]
    assert main([*words, *REG1]) == 0
    return folder


def test_the_seed_is_that_of_the_run(config: Path, reseeded: Path) -> None:
    words = ["test", "--config", str(config), "--run_dir", str(reseeded), *REG1, *NO_PROBES]
    assert main(words) == 0
    assert EvaluationResult.load(reseeded).about["seed"] == 3


def test_without_a_configuration_it_is_that_of_the_run(reseeded: Path) -> None:
    assert main(["test", f"--run_dir={reseeded}", *NO_PROBES]) == 0
    result = EvaluationResult.load(reseeded)
    assert result.about["regularizer"] == {"name": "OffSupportL1", "weight": 0.25}
    assert result.about["seed"] == 3
    assert result.scalars["penalty"] > 0


@pytest.mark.parametrize("word", ["validate", "test"])
def test_another_regularizer_is_refused(
    word: str, line: Callable[..., tuple[int, str]], config: Path, reseeded: Path
) -> None:
    status, error = line(word, "--config", config, "--run_dir", reseeded)
    assert status == 1
    assert "reseeded was trained with OffSupportL1 of weight 0.25" in error
    assert "the configuration given has " in error
    assert f"--config {reseeded / 'config.yaml'}" in error


@pytest.mark.parametrize("word", ["validate", "test"])
def test_weights_of_a_checkpoint_that_is_named_may_have_another(
    word: str, config: Path, reseeded: Path
) -> None:
    checkpoint = reseeded / "checkpoints" / "last.ckpt"
    words = [word, f"--config={config}", f"--run_dir={reseeded}", f"--ckpt_path={checkpoint}"]
    assert main(words + (list(NO_PROBES) if word == "test" else [])) == 0


def test_without_configuration_and_run_it_says_what_is_missing(
    line: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    status, error = line("test", "--run_dir", tmp_path / "nowhere")
    assert status == 1
    assert "nowhere/config.yaml: no such file, and --config names no other" in error
