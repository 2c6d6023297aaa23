"""What a module takes from the data: its width, scale and centre."""

from pathlib import Path

import pytest
import torch

from lightsae.activations import ActivationDataModule
from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder

from ..helpers import D_IN, D_SAE, make_data, make_module, make_trainer


def test_the_width_comes_from_the_data(shards: Path, tmp_path: Path) -> None:
    module = make_module()
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    assert module.sae.W_enc.shape == module.sae.W_dec.shape == (D_SAE, D_IN)
    assert module.hparams["d_in"] == D_IN


@pytest.mark.parametrize("task", ["fit", "validate", "test", "predict"])
def test_a_width_that_disagrees_is_refused_with_both_and_the_folder(
    task: str, shards: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(LightsaeError, match=rf"d_in = 7, .*{shards}.* d_in = 6"):
        getattr(trainer, task)(make_module(d_in=7), make_data(shards))


def test_scale_and_centre_come_from_the_training_split_alone(shards: Path, tmp_path: Path) -> None:
    def fitted(data: ActivationDataModule) -> SparseAutoencoder:
        module = make_module()
        make_trainer(tmp_path, max_epochs=0).fit(module, data)
        return module.sae

    data = make_data(shards, val_fraction=0.3, test_fraction=0.3)
    sae = fitted(data)
    data.setup()
    rows = torch.cat([batch.activations for batch in data.train_dataloader()])
    everything = torch.cat([batch.activations for batch in data.predict_dataloader()])
    variance = (rows - rows.mean(dim=0)).square().sum(dim=1).mean()
    torch.testing.assert_close(sae.scale, variance.sqrt())
    torch.testing.assert_close(sae.b_dec * sae.scale, rows.mean(dim=0))
    assert not torch.allclose(sae.b_dec * sae.scale, everything.mean(dim=0), rtol=1e-3)


@pytest.mark.parametrize("task", ["validate", "test", "predict"])
def test_evaluation_leaves_scale_and_centre_alone(task: str, shards: Path, tmp_path: Path) -> None:
    module = make_module()
    getattr(make_trainer(tmp_path), task)(module, make_data(shards))
    assert module.sae.scale == 1
    assert not module.sae.b_dec.any()
