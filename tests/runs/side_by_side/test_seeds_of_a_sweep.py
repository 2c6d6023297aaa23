"""Seeds trained stacked: their weights differ, and nothing else does."""

from pathlib import Path

import torch

from lightsae.runs.side_by_side.shared_rows import SharedRows
from lightsae.runs.side_by_side.trained_runs import (
    read_autoencoder,
    read_trained,
    run_folders,
)
from lightsae.runs.sweep import SweepFile
from lightsae.training import read_checkpoint


def test_a_sweep_over_seeds_alone_trains_one_setting(sweep: Path, members: list[Path]) -> None:
    runs = [read_trained(folder) for folder in members]
    assert [run.seed for run in runs] == [0, 1, 2]
    assert len({run.variant for run in runs}) == 1
    for run in runs[1:]:
        assert run.config["data"] == runs[0].config["data"]
    shards = [read_checkpoint(f / "checkpoints" / "last.ckpt")["shards"] for f in members]
    assert shards[0] == shards[1] == shards[2]
    SharedRows(runs, "validation").close()


def test_its_weights_come_from_their_seeds(members: list[Path]) -> None:
    saes = [read_autoencoder(folder) for folder in members]
    assert saes[0].scale == saes[1].scale == saes[2].scale
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (saes[one].W_dec - saes[other].W_dec).abs().max() > 0.1
        cosine = torch.cosine_similarity(saes[one].W_dec, saes[other].W_dec)
        assert cosine.abs().mean() < 0.6


def test_of_a_sweep_those_that_trained_to_the_end_are_meant(
    sweep: Path, members: list[Path]
) -> None:
    assert sorted(run_folders([sweep])) == members
    assert len(SweepFile(sweep / "sweep.json").stages["grid"]) == 3
