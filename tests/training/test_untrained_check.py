"""Scale and decoder bias come from data in a fresh autoencoder; a trained one keeps its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightsae.sae import SparseAutoencoder, TopK
from lightsae.training import SAEModule

from .helpers import D_IN, D_SAE, K, make_data, make_module, make_trainer, write_shards


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with last.ckpt and sae/."""
    run = tmp_path_factory.mktemp("trained")
    module = make_module()
    make_trainer(run).fit(module, make_data(shards))
    module.sae.save(run / "sae")
    return run


def with_loaded_weights(trained: Path) -> SAEModule:
    module = make_module(d_in=D_IN)
    module.sae.load_state_dict(SparseAutoencoder.load(trained / "sae").state_dict())
    return module


def from_checkpoint(trained: Path) -> SAEModule:
    path = trained / "last.ckpt"
    return SAEModule.load_from_checkpoint(path, selection=TopK(K), weights_only=True)


def with_a_loaded_autoencoder(trained: Path) -> SAEModule:
    module = make_module(d_in=D_IN)
    module.sae = SparseAutoencoder.load(trained / "sae")
    return module


def state(module: SAEModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.sae.state_dict().items()}


@pytest.mark.parametrize("make", [with_loaded_weights, from_checkpoint, with_a_loaded_autoencoder])
def test_a_trained_autoencoder_starts_a_fit_as_it_is(
    make: Callable[[Path], SAEModule], trained: Path, tmp_path: Path
) -> None:
    other = write_shards(tmp_path / "shards", rows=120)
    module = make(trained)
    before = state(module)
    make_trainer(tmp_path, max_epochs=0).fit(module, make_data(other))
    after = state(module)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_second_fit_goes_on_from_the_first(shards: Path, tmp_path: Path) -> None:
    module, data = make_module(), make_data(shards)
    make_trainer(tmp_path / "first").fit(module, data)
    before = state(module)
    make_trainer(tmp_path / "second", max_epochs=0).fit(module, data)
    assert all(torch.equal(t, before[name]) for name, t in state(module).items())


@pytest.mark.parametrize("changed", ["W_enc", "b_enc", "W_dec", "b_dec", "scale"])
def test_one_tensor_that_was_set_makes_it_a_trained_one(
    changed: str, shards: Path, tmp_path: Path
) -> None:
    module = make_module(d_in=D_IN)
    with torch.no_grad():
        module.sae.state_dict()[changed].mul_(2).add_(1)
    before = state(module)
    make_trainer(tmp_path, max_epochs=0).fit(module, make_data(shards))
    assert torch.equal(module.sae.scale, before["scale"])
    assert torch.equal(module.sae.b_dec, before["b_dec"])


def test_a_fresh_one_gets_both_whether_or_not_its_width_was_given(
    shards: Path, tmp_path: Path
) -> None:
    for d_in in (None, D_IN):
        module = make_module(d_in=d_in)
        make_trainer(tmp_path, max_epochs=0).fit(module, make_data(shards))
        assert module.sae.scale != 1
        assert module.sae.b_dec.all()
        assert module.sae.d_sae == D_SAE
