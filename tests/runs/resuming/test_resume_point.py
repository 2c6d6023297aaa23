"""The checkpoint of a run: taken in time, never at a moment from which a run cannot go on."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightsae.errors import LightsaeError
from lightsae.training import AtomicCheckpointIO, ResumePoint, read_checkpoint

from ...training.helpers import make_data, make_module, make_trainer, metrics


class Saves(Callback):
    """When checkpoints were written: the steps taken so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[int] = []
        original = AtomicCheckpointIO.save_checkpoint

        def save(io: Any, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            self.at.append(checkpoint["global_step"])
            original(io, checkpoint, *args, **kwargs)

        monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)


# Ten batches an epoch, two epochs.
@pytest.mark.parametrize(
    ("every", "options", "at"),
    [
        (3, {}, [3, 6, 9, 10, 13, 16, 19, 20]),
        (5, {}, [5, 10, 15, 20]),
        (10, {}, [10, 20]),
        (1000, {}, [10, 20]),
        (4, {"val_check_interval": 4}, [5, 9, 10, 15, 19, 20]),
        (4, {"val_check_interval": 0.2}, [5, 9, 10, 15, 19, 20]),
        (1, {"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 1},
         [1, 2, 4, 5, 7, 8, 10]),
        (2, {"accumulate_grad_batches": 4}, [2, 3, 5, 6]),
        (3, {"limit_train_batches": 4}, [3, 4, 7, 8]),
        (3, {"max_steps": 8}, [3, 6, 8]),
        (1, {"fast_dev_run": 3}, []),
    ],
    ids=[
        "every third",
        "every fifth",
        "once an epoch",
        "at the end of an epoch alone",
        "validation every 4",
        "validation every fifth of the epoch",
        "validation across epochs",
        "accumulated",
        "part of the epoch",
        "few steps",
        "fast_dev_run",
    ],
)  # fmt: skip
def test_it_is_taken_between_steps_never_before_a_validation_and_at_the_end_of_epochs(
    every: int,
    options: dict[str, Any],
    at: list[int],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saves = Saves(monkeypatch)
    make_trainer(tmp_path, every=every, **options).fit(make_module(), make_data(shards))
    assert saves.at == at


def test_it_must_be_taken_now_and_then(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="every_n_steps must be at least 1, got 0"):
        ResumePoint(tmp_path / "last.ckpt", every_n_steps=0)


def test_a_full_disk_ends_training_with_the_file_named(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lightsae.runs.resuming.checkpoint_files.torch.save", fail)
    with pytest.raises(LightsaeError, match=r"last.ckpt cannot be written: No space left"):
        make_trainer(tmp_path, every=4).fit(make_module(), make_data(shards))
    assert len(metrics(tmp_path)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_failing_write_at_the_end_of_an_epoch_leaves_the_counters_as_they_were(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lightsae.runs.resuming.checkpoint_files.torch.save", fail)
    trainer = make_trainer(tmp_path, max_steps=7)
    with pytest.raises(LightsaeError, match="No space left"):
        trainer.fit(make_module(), make_data(shards))
    assert trainer.fit_loop.epoch_progress.current.processed == 1
    assert trainer.fit_loop.epoch_progress.total.processed == 1


class Terminate(Callback):
    """What SIGTERM does, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_is_answered_by_a_checkpoint_of_its_step(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        make_trainer(tmp_path, callbacks=[Terminate(5)]).fit(make_module(), make_data(shards))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 6
    assert len(metrics(tmp_path)) == 6


class Remembers(Callback):
    """Has a state that becomes what cannot be read back."""

    def __init__(self, from_step: int) -> None:
        self.from_step, self.step = from_step, 0

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        best: Any = np.float32(0.5) if self.step >= self.from_step else 0.5
        return {"step": self.step, "best": best}


def test_a_state_that_could_not_be_read_back_is_refused_before_the_first_step(
    shards: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, callbacks=[Remembers(0)])
    with pytest.raises(LightsaeError) as caught:
        trainer.fit(make_module(), make_data(shards))
    assert str(caught.value) == (
        "callback Remembers: its best is numpy.float32, which could not be read back: "
        "keep tensors and plain values"
    )
    assert trainer.global_step == 0
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_becomes_so_is_refused_when_it_is_first_to_be_written(
    shards: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, every=2, callbacks=[Remembers(3)])
    with pytest.raises(LightsaeError, match=r"last\.ckpt cannot be written: callback Remembers: "):
        trainer.fit(make_module(), make_data(shards))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2


def test_states_of_the_data_and_settings_of_the_module_are_looked_at_too(
    shards: Path, tmp_path: Path
) -> None:
    data, module = make_data(shards), make_module()
    data.state_dict = lambda: {"seen": {1, Path("x")}}  # type: ignore[method-assign]
    with pytest.raises(LightsaeError, match=r"its ActivationDataModule\.seen is set"):
        make_trainer(tmp_path).fit(module, data)
    module = make_module()
    module.hparams["found_in"] = Path("x")
    with pytest.raises(LightsaeError, match=r"its hyper_parameters\.found_in is pathlib"):
        make_trainer(tmp_path).fit(module, make_data(shards))
