"""SAEModule under a Trainer: what its parts do together, in every precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import AuxK, L1L2Ratio, OffSupportL1, TopK
from lightsae.sae.regularizers import Regularizer
from lightsae.training import SAEModule

from .helpers import D_SAE, make_data, make_module, make_trainer, metrics, write_shards


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


class SquaredOffSupport(Regularizer):
    """A user's own, which has no fused operation."""

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        return (a.scatter(1, indices, 0.0) * batch_active).square().sum(dim=1).mean()


def test_k_larger_than_the_dictionary_is_refused() -> None:
    with pytest.raises(LightsaeError, match="k = 9 is larger than d_sae = 8"):
        SAEModule(d_sae=8, selection=TopK(9))


class CrowdOut(Callback):
    """Gives half of the latents activations too small to be selected."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.sae.W_enc.data[: D_SAE // 2] *= 0.02


def dead_fractions(shards: Path, run: Path, weight: float) -> list[float]:
    module = make_module(
        aux_k=AuxK(weight=weight, k_aux=D_SAE // 2, dead_after=160),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
    )
    trainer = make_trainer(run, callbacks=[CrowdOut()], max_epochs=12, limit_val_batches=0)
    trainer.fit(module, make_data(shards))
    return [row["train/dead_fraction"] for row in metrics(run)]


def test_aux_k_revives_dead_latents(tmp_path: Path) -> None:
    wide = write_shards(tmp_path / "shards", d_in=16)
    left = dead_fractions(wide, tmp_path / "without", 0.0)
    revived = dead_fractions(wide, tmp_path / "with", 0.5)
    assert left[9] == revived[9] > 0.3
    assert left[-1] > 0.3
    assert revived[-1] == 0


@pytest.mark.parametrize(
    "regularizer",
    [OffSupportL1(0.3), L1L2Ratio(0.3), SquaredOffSupport(0.3)],
    ids=["reg1", "reg2", "user's own"],
)
def test_a_regularizer_lowers_its_own_penalty(
    regularizer: Regularizer, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=8).fit(
        make_module(regularizer=regularizer, optimizer=sgd), make_data(shards)
    )
    penalties = [row["train/penalty"] for row in metrics(tmp_path) if "train/penalty" in row]
    assert penalties[-1] < 0.8 * penalties[0]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_it_trains_in_every_precision(
    precision: Any, dtype: torch.dtype, shards: Path, tmp_path: Path
) -> None:
    module = make_module(
        regularizer=OffSupportL1(0.01),
        aux_k=AuxK(dead_after=16, k_aux=4),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
    )
    trainer = make_trainer(tmp_path, precision=precision, max_epochs=4)
    data = make_data(shards)
    trainer.fit(module, data)
    [tested] = trainer.test(module, data, verbose=False)
    losses = [row["train/reconstruction"] for row in metrics(tmp_path) if "train/loss" in row]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert {parameter.dtype for parameter in module.sae.parameters()} == {dtype}
    assert tested["test/r2"] > 0.3
    norms = module.sae.W_dec.detach().double().norm(dim=1)
    assert (norms - 1).abs().max() < (1e-2 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("rows", [17, 31], ids=["one row left over", "one row missing"])
def test_the_last_batch_may_be_smaller(rows: int, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", rows=rows)
    data = make_data(folder, val_fraction=0.0, test_fraction=0.0)
    module = make_module(regularizer=L1L2Ratio(0.1), aux_k=AuxK(dead_after=1))
    make_trainer(tmp_path, limit_val_batches=0).fit(module, data)
    rows_logged = metrics(tmp_path)
    assert [row["step"] for row in rows_logged] == [0, 1, 2, 3]
    assert all(row["train/loss"] is not None for row in rows_logged)
    assert all(parameter.isfinite().all() for parameter in module.sae.parameters())
    assert int(module.dead_latents.tokens_since_fired.max()) <= 2 * rows
