from pathlib import Path

import pytest
import torch

from .helpers import write_shards, write_targets

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows of width 6, read by every test."""
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="session")
def targets(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same rows another layer of width 5."""
    return write_targets(tmp_path_factory.mktemp("data") / "targets", shards)
