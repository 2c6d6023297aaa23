"""Lightning's finders of a learning rate and of a batch size, and what they leave behind."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner import Tuner

from lightsae.sae import AuxK
from lightsae.training import SAEAdam, SAEModule, WarmupDecay

from .helpers import make_data, make_module, make_trainer


def make() -> SAEModule:
    return make_module(
        aux_k=AuxK(dead_after=240),
        optimizer=lambda p: SAEAdam(p, lr=0.02),
        lr_scheduler=lambda o: WarmupDecay(o, decay_steps=5),
    )


def trainer(folder: Path) -> Trainer:
    return make_trainer(folder, default_root_dir=folder)


@pytest.fixture(scope="module")
def untuned(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> SAEModule:
    module = make()
    trainer(tmp_path_factory.mktemp("untuned")).fit(module, make_data(shards))
    return module


def same(one: SAEModule, two: SAEModule) -> bool:
    return all(torch.equal(t, two.state_dict()[name]) for name, t in one.state_dict().items())


def test_the_rate_that_is_found_is_that_of_the_next_fit(shards: Path, tmp_path: Path) -> None:
    module, data = make(), make_data(shards)
    tuned = trainer(tmp_path)
    found = Tuner(tuned).lr_find(module, data, num_training=14, min_lr=1e-4, max_lr=0.1)
    assert found is not None
    assert module.lr == found.suggestion()
    tuned.fit(module, data)
    assert tuned.lr_scheduler_configs[0].scheduler.base_lrs == [module.lr]


def test_looking_for_a_rate_changes_nothing_else(
    shards: Path, tmp_path: Path, untuned: SAEModule
) -> None:
    module, data = make(), make_data(shards)
    tuned = trainer(tmp_path)
    Tuner(tuned).lr_find(module, data, num_training=14, max_lr=0.1, update_attr=False)
    tuned.fit(module, data)
    assert same(module, untuned)


def test_a_rate_is_found_by_a_callback_too(shards: Path, tmp_path: Path) -> None:
    module = make_module(optimizer=lambda p: SAEAdam(p, lr=0.02))
    finder = LearningRateFinder(num_training_steps=14, min_lr=1e-4, max_lr=0.1)
    run = make_trainer(tmp_path, callbacks=[finder], default_root_dir=tmp_path)
    run.fit(module, make_data(shards))
    assert module.lr is not None
    assert run.optimizers[0].param_groups[0]["lr"] == module.lr


def test_looking_for_a_batch_size_changes_nothing_else(
    shards: Path, tmp_path: Path, untuned: SAEModule
) -> None:
    module, data = make(), make_data(shards)
    tuned = trainer(tmp_path)
    size = Tuner(tuned).scale_batch_size(
        module, datamodule=data, init_val=8, max_trials=2, steps_per_trial=2
    )
    assert size == data.batch_size > 8
    data.batch_size = 16
    tuned.fit(module, data)
    assert same(module, untuned)
