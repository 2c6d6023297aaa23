"""Copies and pickles of data modules and open shards: they open their files when they read."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightsae.activations import (
    ActivationDataModule,
    DataOptions,
    ModelOptions,
    OnlineActivationDataModule,
    ShardSet,
)
from lightsae.activations.loading.split_datamodule import SplitDataModule

from .test_datamodule import Recorder, _trainer

COPIES: dict[str, Callable[[Any], Any]] = {
    "copied": deepcopy,
    "pickled": lambda found: pickle.loads(pickle.dumps(found)),
}
copied = pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)


def samples(data: SplitDataModule) -> list[list[int]]:
    return [batch.sample_index.tolist() for batch in data.train_dataloader()]


@copied
def test_open_shards_are_opened_anew(
    copy: Callable[[Any], Any], make_shards: Callable[..., Path]
) -> None:
    shards = ShardSet(make_shards(), max_open=2)
    expected = shards.read_activations([0, 5, 9])
    again = copy(shards)
    assert not again._open
    shards.close()
    for found, rows in zip(again.read_activations([0, 5, 9]), expected, strict=True):
        np.testing.assert_array_equal(found, rows)
    np.testing.assert_array_equal(again.read_index(5), shards.read_index(5))
    again.close()
    shards.close()


@copied
def test_a_single_shard_is_opened_anew(
    copy: Callable[[Any], Any], make_shards: Callable[..., Path]
) -> None:
    shards = ShardSet(make_shards())
    with shards._shard(1) as shard, copy(shard) as again:
        np.testing.assert_array_equal(again.read_index(0), shard.read_index(0))
    shards.close()


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
@copied
def test_a_data_module_delivers_the_same_batches(
    copy: Callable[[Any], Any], opened: bool, make_shards: Callable[..., Path]
) -> None:
    data = ActivationDataModule(str(make_shards()), batch_size=8, buffer_rows=32)
    if opened:
        data.setup()
    again = copy(data)
    expected = samples(data)
    data.teardown()
    assert samples(again) == expected
    assert again.digest == data.digest
    again.teardown()


class CopyInTheMiddle(Callback):
    def __init__(self, copy: Callable[[Any], Any]) -> None:
        self.copy = copy
        self.made: SplitDataModule | None = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            self.made = self.copy(trainer.datamodule)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")
@copied
def test_a_copy_in_the_middle_of_a_fit_does_not_reach_the_trainer(
    copy: Callable[[Any], Any], make_shards: Callable[..., Path], tmp_path: Path
) -> None:
    data = ActivationDataModule(str(make_shards()), batch_size=8, buffer_rows=32)
    taken, model = CopyInTheMiddle(copy), Recorder()
    _trainer(tmp_path, callbacks=[taken], max_epochs=1).fit(model, datamodule=data)
    assert taken.made is not None
    assert taken.made.trainer is None
    assert samples(taken.made) == model.seen
    taken.made.teardown()


@copied
def test_a_running_model_is_loaded_anew(copy: Callable[[Any], Any], tmp_path: Path) -> None:
    pytest.importorskip("timm")
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    torch.manual_seed(0)
    data = OnlineActivationDataModule(
        ModelOptions(name="test_vit", pretrained=False, arguments={"img_size": 32}),
        DataOptions(arrays=str(tmp_path / "images.npy"), size=32),
        layer="blocks.1",
        batch_size=8,
    )
    data.setup()
    again = copy(data)
    assert again._open is None
    assert samples(again) == samples(data)
