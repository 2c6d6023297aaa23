"""Under rules that look at the whole batch, two processes are one with batches twice as large."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.training import read_checkpoint

from ..helpers import finish, make_data, metrics, start, start_pair, write_config, write_shards

pytestmark = pytest.mark.slow

SPLITS = {"val_fraction": 0.15, "test_fraction": 0.1}
ADAM = {"class_path": "lightsae.training.SAEAdam", "init_args": {"lr": 0.01}}
RULES: dict[str, dict[str, Any]] = {
    "BatchTopK": {
        "model__init_args__selection": {"class_path": "BatchTopK", "init_args": {"k": 3}},
        "model__init_args__reconstruction": {
            "class_path": "Matryoshka", "init_args": {"prefixes": [0.25, 0.5]}
        },
    },
    "JumpReLU": {"model__init_args__selection": {"class_path": "JumpReLU", "init_args": {"k": 3}}},
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_what_a_rule_learns_is_the_same(rule: str, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    # With batches that hold a whole epoch, the order of its rows does not matter.
    rows = make_data(shards, **SPLITS).rows("train")
    config = {
        processes: write_config(
            tmp_path / f"{processes}.yaml", shards, trainer__precision="64-true",
            trainer__max_epochs=5, model__init_args__optimizer=ADAM,
            data__init_args__batch_size=-(-rows // processes), **RULES[rule],
            **{f"data__init_args__{name}": share for name, share in SPLITS.items()},
        )
        for processes in (1, 2)
    }  # fmt: skip
    one = start("fit", "--config", config[1], "--run_dir", tmp_path / "1")
    two = start_pair("fit", "--config", config[2], "--run_dir", tmp_path / "2")
    assert finish(one, *two) == [0, 0, 0]
    expected, found = (
        read_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"] for run in "12"
    )
    for name, tensor in expected.items():
        # Thresholds are of float32.
        tolerance = 1e-6 if "selection" in name else 1e-7
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    logged, told = (metrics(tmp_path / run) for run in "12")
    for row, other in zip(logged, told, strict=True):
        assert other == pytest.approx(row, rel=1e-5), row["step"]
