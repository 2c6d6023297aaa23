"""A module that trains with the monosemanticity loss, on its inputs or on another model's."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.sae import MonosemanticityLoss, objective
from lightsae.training import SAEModule

from ..helpers import make_data, make_module, make_trainer, metrics, write_shards


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples as another model sees them."""
    return write_shards(tmp_path_factory.mktemp("others") / "shards", d_in=4)


def trained(shards: Path, run: Path, regularizer: Any, **data: Any) -> SAEModule:
    module = make_module(regularizer=regularizer, optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
    make_trainer(run, max_epochs=2).fit(module, make_data(shards, **data))
    return module


@pytest.mark.filterwarnings("ignore:MonosemanticityLoss.* unread")
@pytest.mark.parametrize("embeddings", ["input", "data"])
def test_the_logged_penalty_is_that_of_the_embeddings_asked_for(
    embeddings: Any, shards: Path, others: Path, tmp_path: Path
) -> None:
    regularizer = MonosemanticityLoss(0.5, embeddings)
    module = trained(shards, tmp_path, regularizer, embeddings=str(others))
    data = make_data(shards, embeddings=str(others), batch_size=20)
    data.setup()
    [batch] = data.val_dataloader()
    x = batch.activations
    compared = x if embeddings == "input" else batch.embeddings
    scaled = module.sae.normalize(x).x
    wanted = objective(module.sae, scaled, regularizer=regularizer, embeddings=compared).penalty
    _, last = [row["val/penalty"] for row in metrics(tmp_path) if "val/penalty" in row]
    assert module.trainer.num_val_batches == [2]
    make_trainer(tmp_path / "again").validate(module, data)
    assert module.trainer.callback_metrics["val/penalty"].item() == pytest.approx(wanted.item())
    assert 0 < last < 1


@pytest.mark.parametrize("word", ["fit", "validate", "test"])
def test_data_that_gives_no_embeddings_is_told_before_anything_is_built(
    word: str, shards: Path, tmp_path: Path
) -> None:
    module = make_module(regularizer=MonosemanticityLoss(0.5, "data"))
    with pytest.raises(LightsaeError, match=r"give the data module embeddings \(data.init_args"):
        getattr(make_trainer(tmp_path), word)(module, datamodule=make_data(shards))
    assert not hasattr(module, "sae")


@pytest.mark.filterwarnings("ignore:scale and b_dec come from")
def test_loaders_that_give_no_embeddings_are_told_at_the_first_batch(
    shards: Path, tmp_path: Path
) -> None:
    module = make_module(regularizer=MonosemanticityLoss(0.5, "data"))
    data = make_data(shards)
    data.setup()
    with pytest.raises(LightsaeError, match="give the data module embeddings"):
        make_trainer(tmp_path).fit(module, data.train_dataloader(), data.val_dataloader())


def test_embeddings_that_are_not_read_are_told(shards: Path, others: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="embeddings of the data module unread"):
        trained(shards, tmp_path, MonosemanticityLoss(0.5), embeddings=str(others))


def test_going_on_with_other_embeddings_is_refused(
    shards: Path, others: Path, tmp_path: Path
) -> None:
    trained(shards, tmp_path, MonosemanticityLoss(0.5, "data"), embeddings=str(others))
    changed = write_shards(tmp_path / "changed", d_in=5)
    module = make_module(regularizer=MonosemanticityLoss(0.5, "data"))
    trainer = make_trainer(tmp_path, max_epochs=3)
    with pytest.raises(LightsaeError, match="trained on other shards \\(embeddings digest"):
        data = make_data(shards, embeddings=str(changed))
        trainer.fit(module, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
