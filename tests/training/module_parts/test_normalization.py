"""A run with each normalisation: what is saved takes raw rows, and R2 is that of raw rows."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.metrics import R2
from lightsae.sae import Normalization, SparseAutoencoder
from lightsae.training import read_checkpoint

from ..helpers import D_IN, make_data, make_module, make_trainer, metrics, write_config

KINDS = get_args(Normalization)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_autoencoder_is_the_trained_one_on_raw_rows(
    kind: str, shards: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "config.yaml", shards)
    chosen = f"--model.init_args.normalization={kind}"
    rate = "--model.init_args.optimizer.init_args.lr=0.0001"
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run), chosen, rate]) == 0
    sae = SparseAutoencoder.load(run / "sae")
    assert sae.normalization == kind
    data = make_data(shards)
    x = torch.cat([batch.activations for batch in data.val_dataloader()])
    data.teardown()
    measured = R2(D_IN)
    measured.update(x_hat=sae(x), x=x)
    logged = [row["val/r2"] for row in metrics(run) if "val/r2" in row]
    # One goes through the residual, the other through the reconstruction, both in float32.
    assert logged[-1] == pytest.approx(measured.compute().item(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_r2_of_a_training_step_is_that_of_raw_rows(
    kind: Normalization, shards: Path, tmp_path: Path
) -> None:
    module = make_module(normalization=kind, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    trainer = make_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(module, make_data(shards))
    data = make_data(shards)
    x = next(iter(data.train_dataloader())).activations
    data.teardown()
    measured = R2(D_IN)
    measured.update(x_hat=module.sae(x), x=x)
    found = metrics(tmp_path)[0]["train/r2"]
    # As above: float32 along two ways.
    assert found == pytest.approx(measured.compute().item(), abs=1e-5)


def test_a_checkpoint_of_another_normalisation_is_refused(shards: Path, tmp_path: Path) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(
        make_module(normalization="layer_norm"), make_data(shards)
    )
    path = tmp_path / "last.ckpt"
    assert read_checkpoint(path)["normalization"] == "layer_norm"
    message = (
        rf"^{path} is a checkpoint of another model: it was trained with normalization "
        r"'layer_norm', this one has 'variance'$"
    )
    with pytest.raises(LightsaeError, match=message):
        make_trainer(tmp_path).test(make_module(), make_data(shards), ckpt_path=path)


def test_a_normalisation_that_there_is_not_is_refused() -> None:
    with pytest.raises(LightsaeError, match=r"^normalization is 'whiten', expected one of varianc"):
        make_module(normalization="whiten")
