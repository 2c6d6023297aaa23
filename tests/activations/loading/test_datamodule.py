import warnings
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint

from lightsae.activations import (
    ActivationBatch,
    ActivationDataModule,
    ActivationSource,
    Manifest,
    ShardWriter,
)
from lightsae.errors import LightsaeError


class Recorder(LightningModule):
    """Writes down the samples of every training batch that it finishes."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at
        self.seen: list[list[int]] = []
        self.evaluated: list[int] = []

    def training_step(self, batch: ActivationBatch, batch_idx: int) -> torch.Tensor:
        if self.fail_at is not None and self.global_step == self.fail_at:
            raise RuntimeError("stopped")
        self.seen.append(batch.sample_index.tolist())
        return self.weight * batch.activations.mean()

    def validation_step(self, batch: ActivationBatch, batch_idx: int) -> None:
        self.evaluated += batch.sample_index.tolist()

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _trainer(tmp_path: Path, callbacks: list[Callback] | None = None, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"max_epochs": 3, "num_sanity_val_steps": 0, **options},
    )


@pytest.fixture
def make_data(make_shards: Callable[..., Path]) -> Callable[..., ActivationDataModule]:
    folder = make_shards(rows=100)

    def make(**options: Any) -> ActivationDataModule:
        options = {"batch_size": 20, "buffer_rows": 40, **options}
        options = {"val_fraction": 0.1, "test_fraction": 0.1, **options}
        return ActivationDataModule(str(folder), **options)

    return make


MakeData = Callable[..., ActivationDataModule]


def _fit(
    tmp_path: Path, data: ActivationDataModule, model: Recorder, ckpt: Path | None, **options: Any
) -> list[list[int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _trainer(tmp_path, **options).fit(model, datamodule=data, ckpt_path=ckpt)
    return model.seen


def test_lightning_sees_every_training_row_once_an_epoch(
    tmp_path: Path, make_data: MakeData
) -> None:
    model = Recorder()
    seen = _fit(tmp_path, make_data(), model, None)
    assert len(seen) == 12
    epochs = [sorted(chain(*seen[start : start + 4])) for start in (0, 4, 8)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(set(epochs[0])) == 80
    assert seen[0] != seen[4]
    assert len(model.evaluated) == 30
    assert not set(model.evaluated) & set(epochs[0])


@pytest.mark.parametrize("share", [8, 0.5], ids=["a number", "a fraction"])
def test_overfit_batches_sees_the_same_rows_in_every_epoch(
    tmp_path: Path, make_data: MakeData, share: float
) -> None:
    def fit(ckpt: Path | None, **options: Any) -> list[list[int]]:
        data = make_data(batch_size=5)
        return _fit(tmp_path, data, Recorder(), ckpt, overfit_batches=share, **options)

    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    seen = fit(None, callbacks=[save])
    assert seen[:8] == seen[8:16] == seen[16:]
    assert fit(tmp_path / "step=10.ckpt") == seen[10:]


def test_limit_train_batches_sees_other_rows_in_every_epoch(
    tmp_path: Path, make_data: MakeData
) -> None:
    seen = _fit(tmp_path, make_data(), Recorder(), None, limit_train_batches=2)
    assert len(seen) == 6
    assert seen[0] != seen[2] != seen[4]


@pytest.mark.parametrize("limit", [1.0, 3], ids=["whole", "limited"])
@pytest.mark.parametrize("step", range(1, 9))
def test_a_resumed_run_sees_the_rows_of_an_uninterrupted_one(
    tmp_path: Path, make_data: MakeData, step: int, limit: float
) -> None:
    options = {"limit_train_batches": limit}
    whole = _fit(tmp_path, make_data(), Recorder(), None, **options)
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    before = _fit(tmp_path, make_data(), Recorder(), None, callbacks=[save], **options)
    assert before == whole
    after = _fit(tmp_path, make_data(), Recorder(), tmp_path / f"step={step}.ckpt", **options)
    assert before[:step] + after == whole


@pytest.mark.parametrize("fail_at", [0, 1, 4, 6, 11])
def test_a_run_resumed_after_an_exception_repeats_the_batch_that_failed(
    tmp_path: Path, make_data: MakeData, fail_at: int
) -> None:
    whole = _fit(tmp_path, make_data(), Recorder(), None)
    stopped = Recorder(fail_at)
    with pytest.raises(RuntimeError, match="stopped"):
        _fit(tmp_path, make_data(), stopped, None, callbacks=[OnExceptionCheckpoint(tmp_path)])
    assert stopped.seen == whole[:fail_at]
    after = _fit(tmp_path, make_data(), Recorder(), tmp_path / "on_exception.ckpt")
    assert stopped.seen + after == whole


@pytest.mark.parametrize("end", [True, False], ids=["after-epoch", "after-validation"])
def test_a_run_resumed_from_an_epochs_end_begins_the_next(
    tmp_path: Path, make_data: MakeData, end: bool
) -> None:
    whole = _fit(tmp_path, make_data(), Recorder(), None)
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_on_train_epoch_end=end, save_top_k=-1)
    _fit(tmp_path, make_data(), Recorder(), None, callbacks=[save], max_epochs=2)
    for epoch in (0, 1):
        after = _fit(tmp_path, make_data(), Recorder(), tmp_path / f"epoch={epoch}.ckpt")
        assert after == whole[4 * (epoch + 1) :]


@pytest.mark.parametrize("steps", [2, 4, 5])
def test_a_run_counted_in_steps_goes_on(tmp_path: Path, make_data: MakeData, steps: int) -> None:
    options = {"max_epochs": -1, "max_steps": 11}
    whole = _fit(tmp_path, make_data(), Recorder(), None, **options)
    assert len(whole) == 11
    save = ModelCheckpoint(tmp_path, filename="x", save_last=True)
    options["max_steps"] = steps
    before = _fit(tmp_path, make_data(), Recorder(), None, callbacks=[save], **options)
    options["max_steps"] = 11
    after = _fit(tmp_path, make_data(), Recorder(), tmp_path / "last.ckpt", **options)
    assert before + after == whole


def test_reloading_the_loader_every_epoch_keeps_the_order(
    tmp_path: Path, make_data: MakeData
) -> None:
    whole = _fit(tmp_path, make_data(), Recorder(), None)
    again = _fit(tmp_path, make_data(), Recorder(), None, reload_dataloaders_every_n_epochs=1)
    assert again == whole


def test_test_and_predict_read_their_rows_once(tmp_path: Path, make_data: MakeData) -> None:
    data, model = make_data(), Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = _trainer(tmp_path)
        trainer.test(model, datamodule=data)
        assert len(model.evaluated) == len(set(model.evaluated)) == 10
        model.evaluated = []
        trainer.predict(model, datamodule=data, return_predictions=False)
    assert model.evaluated == list(range(100))


def test_shuffled_batches_of_a_split_outside_a_trainer_begin_with_a_sample(
    make_data: MakeData,
) -> None:
    data = make_data()
    stored, shuffled = (
        torch.cat([b.sample_index for b in data.split_dataloader("train", shuffle=each)]).tolist()
        for each in (False, True)
    )
    assert sorted(stored) == sorted(shuffled) and stored == sorted(stored)
    assert sorted(shuffled[: len(stored) // 4]) != stored[: len(stored) // 4]


def test_a_training_sample_is_of_the_training_split(make_data: MakeData) -> None:
    data = make_data()
    sample = data.training_sample()
    trained = {int(x) for batch in data.train_dataloader() for x in batch.activations[:, 0]}
    assert {int(x) for x in sample[:, 0]} == trained
    assert sample.shape == (80, 8)
    assert sample.dtype == torch.float32
    assert torch.equal(make_data().training_sample(13), data.training_sample(13))
    assert len(data.training_sample(13)) == 13
    data.teardown()


def test_d_in_and_the_manifest_need_no_setup(make_data: MakeData) -> None:
    data = make_data()
    assert data.d_in == data.manifest.d_in == 8
    data.setup()
    data.setup()
    assert data.rows("train") == 80
    assert data.d_in == 8
    data.teardown()
    data.teardown()


def test_other_rows_in_the_same_folder_have_another_digest(
    tmp_path: Path, make_shards: Callable[..., Path]
) -> None:
    digests = []
    for name, rows in (("first", 60), ("again", 60), ("other", 61)):
        make_shards(rows=rows, name=name).rename(tmp_path / "here")
        data = ActivationDataModule(str(tmp_path / "here"))
        data.setup()
        digests.append(data.digest)
        assert data.digest == data.manifest.digest()
        data.teardown()
        (tmp_path / "here").rename(tmp_path / f"{name}-was")
    assert digests[0] == digests[1] != digests[2]


def test_a_digest_is_of_the_shards_that_were_opened(
    tmp_path: Path, make_shards: Callable[..., Path]
) -> None:
    folder = make_shards(rows=60)
    data = ActivationDataModule(str(folder))
    data.setup()
    opened = data.digest
    folder.rename(tmp_path / "gone")
    make_shards(rows=61)
    assert data.digest == opened
    data.teardown()
    assert data.digest != opened


def test_a_fit_without_a_validation_split_does_not_validate(
    tmp_path: Path, make_data: MakeData
) -> None:
    model = Recorder()
    seen = _fit(tmp_path, make_data(val_fraction=0.0), model, None, num_sanity_val_steps=2)
    assert [sum(len(batch) for batch in seen[start : start + 5]) for start in (0, 5, 10)] == [
        90
    ] * 3
    assert model.evaluated == []


@pytest.mark.parametrize(("word", "split"), [("val", "validation"), ("test", "test")])
def test_a_split_that_there_is_not_cannot_be_evaluated(
    tmp_path: Path, make_data: MakeData, word: str, split: str
) -> None:
    data = make_data(**{f"{word}_fraction": 0.0})
    message = f"^{data.path}: there is no {split} split: {word}_fraction is 0$"
    with pytest.raises(LightsaeError, match=message):
        getattr(data, f"{word}_dataloader")()
    trainer = _trainer(tmp_path)
    evaluate = trainer.validate if word == "val" else trainer.test
    with warnings.catch_warnings(), pytest.raises(LightsaeError, match=message):
        warnings.simplefilter("ignore")
        evaluate(Recorder(), datamodule=data)


def test_the_other_splits_stand_without_a_test_split(make_data: MakeData) -> None:
    data = make_data(test_fraction=0.0)
    rows = [len(batch.label) for batch in data.val_dataloader() if batch.label is not None]
    assert (sum(rows), data.rows("train"), data.rows("test")) == (10, 90, 0)
    data.teardown()


def test_a_seed_is_not_negative(make_data: MakeData) -> None:
    with pytest.raises(LightsaeError, match=r"^seed is -1, expected at least 0"):
        make_data(seed=-1)


def test_an_unknown_dtype_is_an_error(make_data: MakeData) -> None:
    with pytest.raises(LightsaeError, match="dtype is 'int8'"):
        make_data(dtype="int8")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    data = ActivationDataModule(str(tmp_path / "nowhere"))
    data.prepare_data()
    for fails in (lambda: data.d_in, data.setup):
        with pytest.raises(LightsaeError, match=r"nowhere: .* `lightsae extract` makes one"):
            fails()


class _Source:
    """Makes ten rows, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def write(self, path: Path) -> None:
        self.calls += 1
        with ShardWriter(path, Manifest(d_in=2, dtype="float32")) as writer:
            writer.write(torch.ones(10, 2), torch.arange(10))


def test_a_source_makes_what_is_missing_or_unfinished(tmp_path: Path) -> None:
    source = _Source()
    assert isinstance(source, ActivationSource)
    ShardWriter(tmp_path, Manifest(d_in=2, dtype="float32")).abort()
    data = ActivationDataModule(str(tmp_path), source=source)
    for _ in range(2):
        data.prepare_data()
    assert source.calls == 1
    data.setup()
    assert data.rows("all") == 10
    data.teardown()
