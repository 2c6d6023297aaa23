"""What Lightning hands to processes that it spawns, and takes back from them."""

import pickle
from pathlib import Path

import torch

from lightsae.training import AtomicCheckpointIO, SAEAdam, SAEModule

from ..helpers import D_IN, make_data, make_module


def test_a_module_and_its_data_can_be_sent(shards: Path) -> None:
    data = make_data(shards)
    data.setup()
    module, again = pickle.loads(pickle.dumps((make_module(d_in=D_IN), data)))
    assert isinstance(module, SAEModule)
    optimizer = module.make_optimizer(module.sae.parameters())
    assert isinstance(optimizer, SAEAdam)
    assert optimizer.param_groups[0]["lr"] == 4e-4
    assert again.training_sample(5).shape == (5, D_IN)
    again.teardown()
    data.teardown()


def test_the_weights_that_come_back_bring_their_width(tmp_path: Path) -> None:
    trained, here = make_module(d_in=D_IN), make_module()
    path = tmp_path / ".temp.ckpt"  # as Lightning names it
    AtomicCheckpointIO().save_checkpoint(trained.state_dict(), path)
    here.load_state_dict(AtomicCheckpointIO().load_checkpoint(path))
    assert here.sae.d_in == here.hparams["d_in"] == D_IN
    assert torch.equal(here.sae.W_enc, trained.sae.W_enc)
