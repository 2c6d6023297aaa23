"""Callbacks with which a run could not end are refused before it trains."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelPruning

from lightsae.errors import LightsaeError

from .helpers import make_data, make_module, make_trainer


def test_pruning_is_refused(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, callbacks=(ModelPruning("l1_unstructured"),))
    with pytest.raises(LightsaeError, match=r"^ModelPruning puts masked copies .*: leave it out$"):
        trainer.fit(make_module(), make_data(shards))


def test_early_stopping_without_validation_rows_is_refused_at_the_start(
    shards: Path, tmp_path: Path
) -> None:
    for name, options, trained in (
        ("rows", {"val_fraction": 0}, {}),
        ("batches", {}, {"limit_val_batches": 0}),
    ):
        trainer = make_trainer(tmp_path / name, callbacks=(EarlyStopping("val/r2"),), **trained)
        with pytest.raises(LightsaeError, match=r"^EarlyStopping waits for val/r2, but no row is"):
            trainer.fit(make_module(), make_data(shards, **options))
        assert trainer.global_step == 0


@pytest.mark.parametrize("every", [1, 2])
def test_early_stopping_with_validation_rows_runs(every: int, shards: Path, tmp_path: Path) -> None:
    stopping = EarlyStopping("val/r2", check_on_train_epoch_end=False)
    trainer = make_trainer(tmp_path, callbacks=(stopping,), check_val_every_n_epoch=every)
    trainer.fit(make_module(), make_data(shards))
    assert trainer.global_step > 0
