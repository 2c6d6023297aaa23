"""Shards, a configuration of them, a finished run and a way to ask for an error."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightsae.cli import main

from ..training.helpers import write_config, write_shards

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def config(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "config.yaml", shards)


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["fit", "--config", str(config), "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def line(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command; return its status and the one line of its error."""

    def ask(*words: object) -> tuple[int, str]:
        status = main([str(word) for word in words])
        errors = [text for text in capfd.readouterr().err.splitlines() if "error:" in text]
        assert len(errors) == 1, errors
        return status, errors[0]

    return ask
