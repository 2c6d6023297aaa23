"""Rows that several runs have in common."""

from pathlib import Path

import pytest
import torch

from lightsae.activations import Manifest, ShardWriter
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.runs.side_by_side.shared_rows import SharedRows


@pytest.fixture
def run(tmp_path: Path) -> EvaluatedRun:
    """One over 400 rows that hold their place, in chunks of 8."""
    with ShardWriter(tmp_path / "shards", Manifest(1, "float32"), chunk_rows=8) as writer:
        places = torch.arange(400)
        writer.write(places[:, None].float(), places)
    data = {"path": str(tmp_path / "shards"), "val_fraction": 0.5, "test_fraction": 0.0}
    config = {"data": {"class_path": "lightsae.activations.ActivationDataModule",
                       "init_args": data}}  # fmt: skip
    return EvaluatedRun(folder=tmp_path, result=EvaluationResult({"d_sae": 1}), config=config)


def places(rows: SharedRows) -> list[int]:
    try:
        return torch.cat(list(rows))[:, 0].int().tolist()
    finally:
        rows.close()


def test_all_rows_of_a_split_come_in_stored_order(run: EvaluatedRun) -> None:
    assert places(SharedRows([run], "all")) == list(range(400))


def test_fewer_are_drawn_from_all_of_it_and_always_the_same(run: EvaluatedRun) -> None:
    split = places(SharedRows([run], "train"))
    drawn = places(SharedRows([run], "train", 40))
    assert len(drawn) == len(set(drawn)) == 40 and set(drawn) <= set(split)
    assert min(drawn) < 100 and max(drawn) >= 300
    assert drawn == places(SharedRows([run], "train", 40))


def test_a_setting_left_out_is_its_default(run: EvaluatedRun) -> None:
    data = run.config["data"]
    said = {"data": {**data, "init_args": {**data["init_args"], "split_seed": 0}}}
    other = EvaluatedRun(folder=Path("b"), result=run.result, config=said)
    assert len(SharedRows([run, other], "all")) == 400


def test_a_split_that_is_not_there_is_named(run: EvaluatedRun) -> None:
    with pytest.raises(LightsaeError, match="has no rows in its split test"):
        SharedRows([run], "test")
