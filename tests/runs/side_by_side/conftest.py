"""Three seeds trained as one stack."""

from pathlib import Path

import pytest

from lightsae.cli import main

from ...training.conftest import shards as shards
from ..sweep.helpers import write_sweep


@pytest.fixture(scope="session")
def sweep(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep over seeds alone."""
    folder = tmp_path_factory.mktemp("seeds")
    config = write_sweep(
        folder / "seeds.yaml", shards, {"seed": [0, 1, 2]}, model__init_args__regularizer=None
    )
    assert main(["sweep", "--config", str(config), "--run_dir", str(folder / "sweep")]) == 0
    return folder / "sweep"


@pytest.fixture(scope="session")
def members(sweep: Path) -> list[Path]:
    """Run folders of its seeds."""
    return sorted((sweep / "members").iterdir())
