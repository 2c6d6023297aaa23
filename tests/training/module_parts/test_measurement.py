"""What a module logs of training steps and measures of a split."""

from pathlib import Path

import pytest
import torch

from lightsae.sae import AuxK, L1L2Ratio

from ..helpers import D_IN, K, make_data, make_module, make_trainer, metrics

TRAIN_NAMES = {
    "train/loss",
    "train/reconstruction",
    "train/aux_k",
    "train/penalty",
    "train/r2",
    "train/l0",
    "train/dead_fraction",
    "train/batch_active_fraction",
}
EVALUATION_NAMES = {"loss", "reconstruction", "penalty", "r2", "l0", "dead"}


def test_every_step_logs_the_parts_of_the_loss_and_how_sparse_the_code_is(
    shards: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, max_epochs=1)
    module = make_module(regularizer=L1L2Ratio(0.5), aux_k=AuxK(weight=0.25, dead_after=16))
    trainer.fit(module, make_data(shards))
    steps, validation = metrics(tmp_path)[:-1], metrics(tmp_path)[-1]
    assert [row["step"] for row in steps] == list(range(10))
    assert all(row.keys() == TRAIN_NAMES | {"step", "epoch"} for row in steps)
    assert validation.keys() == {f"val/{n}" for n in EVALUATION_NAMES} | {"step", "epoch"}
    for row in steps:
        parts = row["train/reconstruction"] + 0.25 * row["train/aux_k"] + 0.5 * row["train/penalty"]
        assert row["train/loss"] == pytest.approx(parts)
        assert 0 < row["train/l0"] <= K
        assert 0 < row["train/batch_active_fraction"] <= 1
    assert steps[-1]["train/dead_fraction"] > 0
    assert steps[-1]["train/aux_k"] > 0


def test_speed_is_measured_from_the_first_step_of_an_epoch(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    trainer.fit(make_module(), make_data(shards))
    speeds = [
        row.get("train/tokens_per_second")
        for row in trainer.logger.rows()  # type: ignore[union-attr]
    ]
    assert [step for step, speed in enumerate(speeds) if speed is None] == [0, 10]
    assert all(speed > 0 for speed in speeds if speed is not None)


def test_test_logs_its_own_names(shards: Path, tmp_path: Path) -> None:
    [logged] = make_trainer(tmp_path).test(make_module(), make_data(shards), verbose=False)
    assert logged.keys() == {f"test/{name}" for name in EVALUATION_NAMES}


def test_validation_metrics_are_those_of_all_rows_at_once(shards: Path, tmp_path: Path) -> None:
    module, data = make_module(d_in=D_IN), make_data(shards, batch_size=3)
    [logged] = make_trainer(tmp_path).validate(module, data, verbose=False)
    data.setup()
    x = torch.cat([batch.activations for batch in data.val_dataloader()])
    residual = (x - module.sae(x)).square().sum()
    r2 = 1 - residual / (x - x.mean(dim=0)).square().sum()
    assert len(x) % 3
    assert logged["val/r2"] == pytest.approx(r2.item(), rel=1e-5)
    assert logged["val/reconstruction"] == pytest.approx(residual.item() / len(x), rel=1e-5)


def test_predict_returns_the_code_of_every_row(shards: Path, tmp_path: Path) -> None:
    module, data = make_module(d_in=D_IN), make_data(shards)
    codes = make_trainer(tmp_path).predict(module, data)
    assert codes is not None
    assert sum(len(code.values) for code in codes) == 200
    assert torch.equal(
        module(torch.ones(2, D_IN)).indices, module.sae.encode(torch.ones(2, D_IN)).indices
    )
