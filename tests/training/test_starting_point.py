"""A fresh autoencoder that starts as a trained one."""

from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder, TopK
from lightsae.training import SAEModule
from lightsae.training.stacked import Member, StackedModule
from lightsae.training.starting_point import start_of_checkpoint

from .helpers import D_IN, D_SAE, K, make_data, make_module, make_trainer


@pytest.fixture
def trained(tmp_path: Path) -> SparseAutoencoder:
    torch.manual_seed(5)
    sae = SparseAutoencoder(D_IN, D_SAE, TopK(K))
    sae.initialize_(torch.randn(30, D_IN))
    sae.provenance = {"from": "elsewhere"}
    sae.save(tmp_path / "sae")
    return sae


def started(tmp_path: Path, shards: Path, **options: object) -> SAEModule:
    module = make_module(start_from=str(tmp_path / "sae"), **options)
    trainer = make_trainer(tmp_path / "run", max_epochs=0, limit_val_batches=0)
    trainer.fit(module, make_data(shards))
    return module


def test_training_starts_with_its_weights_scale_and_provenance(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    found = started(tmp_path, shards).sae
    for name, tensor in trained.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert found.provenance == {"from": "elsewhere"}


def test_a_module_that_is_trained_keeps_its_weights(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    module = make_module(start_from=str(tmp_path / "sae"), d_in=D_IN)
    module.sae.initialize_(torch.randn(30, D_IN))
    before = module.sae.W_enc.detach().clone()
    trainer = make_trainer(tmp_path / "run", max_epochs=0, limit_val_batches=0)
    trainer.fit(module, make_data(shards))
    assert torch.equal(module.sae.W_enc, before)


def test_a_run_goes_on_where_it_stopped_and_needs_the_folder_no_longer(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    whole = make_module(start_from=str(tmp_path / "sae"))
    make_trainer(tmp_path / "whole").fit(whole, make_data(shards))
    first = make_module(start_from=str(tmp_path / "sae"))
    make_trainer(tmp_path / "parts", max_epochs=1).fit(first, make_data(shards))
    (tmp_path / "sae" / "sae.json").unlink()
    second = make_module(seed=9, start_from=str(tmp_path / "sae"))
    trainer = make_trainer(tmp_path / "parts")
    trainer.fit(second, make_data(shards), ckpt_path=tmp_path / "parts" / "last.ckpt")
    torch.testing.assert_close(second.sae.W_dec, whole.sae.W_dec)
    assert second.sae.provenance == {"from": "elsewhere"}


def test_a_run_does_not_go_on_as_if_it_had_started_as_another(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    first = make_module(start_from=str(tmp_path / "sae"))
    make_trainer(tmp_path / "run", max_epochs=1).fit(first, make_data(shards))
    checkpoint = tmp_path / "run" / "last.ckpt"
    moved = make_module(start_from=str((tmp_path / "sae").rename(tmp_path / "moved")))
    make_trainer(tmp_path / "run").fit(moved, make_data(shards), ckpt_path=checkpoint)
    first.sae.save(tmp_path / "other")
    other = make_module(start_from=str(tmp_path / "other"))
    with pytest.raises(LightsaeError, match="started as another autoencoder than"):
        make_trainer(tmp_path / "run", max_epochs=3).fit(
            other, make_data(shards), ckpt_path=checkpoint
        )


def test_optimizer_and_dead_counters_are_those_of_a_fresh_run(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    module = started(tmp_path, shards)
    assert not module.dead_latents.tokens_since_fired.any()
    assert not module.trainer.optimizers[0].state


def test_what_a_module_started_as_comes_with_its_checkpoint(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    module = make_module(start_from=str(tmp_path / "sae"))
    make_trainer(tmp_path / "run", max_epochs=1).fit(module, make_data(shards))
    found = SAEModule.load_from_checkpoint(tmp_path / "run" / "last.ckpt")
    assert found.sae.provenance == {"from": "elsewhere"}


@pytest.mark.parametrize("start", [3, {}, {"xxh3": "a", "provenance": []}])
def test_a_checkpoint_with_a_start_of_another_form_is_refused(start: object) -> None:
    with pytest.raises(LightsaeError, match="holds a start that no run has written"):
        start_of_checkpoint({"start": start})


def test_a_stack_goes_on_without_the_folder(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    def stack(epochs: int, checkpoint: Path | None = None) -> SAEModule:
        made = Member.made("a", 0, lambda: make_module(start_from=str(tmp_path / "sae")))
        trainer = make_trainer(tmp_path / "run", max_epochs=epochs, limit_val_batches=0)
        trainer.fit(StackedModule([made]), make_data(shards), ckpt_path=checkpoint)
        return made.module

    stack(1)
    (tmp_path / "sae" / "sae.json").unlink()
    module = stack(2, tmp_path / "run" / "last.ckpt")
    assert module.sae.provenance == {"from": "elsewhere"}


def test_every_member_of_a_stack_starts_as_it(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path
) -> None:
    def make() -> SAEModule:
        return make_module(start_from=str(tmp_path / "sae"))

    members = [Member.made(f"seed {seed}", seed, make) for seed in (0, 1)]
    trainer = make_trainer(tmp_path / "run", max_epochs=0, limit_val_batches=0)
    trainer.fit(StackedModule(members), make_data(shards))
    for member in members:
        assert torch.equal(member.module.sae.W_enc, trained.W_enc)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"d_sae": 12}, "has d_sae 24, the model 12"),
        ({"normalization": "unit_norm"}, "has normalization variance, the model unit_norm"),
    ],
)
def test_another_shape_is_refused(
    trained: SparseAutoencoder, tmp_path: Path, shards: Path, options: dict[str, object], told: str
) -> None:
    with pytest.raises(LightsaeError, match=told):
        started(tmp_path, shards, **options)


def test_an_untrained_one_is_no_start(tmp_path: Path, shards: Path) -> None:
    SparseAutoencoder(D_IN, D_SAE, TopK(K)).save(tmp_path / "sae")
    with pytest.raises(LightsaeError, match="sae is untrained, expected a trained one"):
        started(tmp_path, shards)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, shards: Path) -> None:
    module = make_module(start_from=str(tmp_path / "sae"))
    with pytest.raises(LightsaeError, match=r"start_from: .*sae holds no sae\.json"):
        make_trainer(tmp_path / "run").fit(module, make_data(shards))
