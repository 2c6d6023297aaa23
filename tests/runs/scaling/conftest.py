"""A tiny sweep over n."""

from pathlib import Path

import pytest

from lightsae.cli import main

from ...training.conftest import shards as shards
from ..sweep.helpers import write_sweep


@pytest.fixture(scope="session")
def sweep(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sizes, two seeds, trained with `MultiTopK`."""
    folder = tmp_path_factory.mktemp("scaling")
    grid = {"k": [2], "d_sae": [8, 12, 16, 24], "seed": [0, 1]}
    config = write_sweep(
        folder / "sweep.yaml", shards, grid, model__init_args__regularizer=None,
        model__init_args__reconstruction={"class_path": "lightsae.sae.MultiTopK"},
        trainer__max_epochs=1,
    )  # fmt: skip
    assert main(["sweep", "--config", str(config), "--run_dir", str(folder / "sweep")]) == 0
    return folder / "sweep"
