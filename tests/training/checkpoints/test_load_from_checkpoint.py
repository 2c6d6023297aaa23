"""A checkpoint alone builds its module again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.sae import (
    AuxK,
    L1L2Ratio,
    MonosemanticityLoss,
    OffSupportL1,
    Regularizer,
    TopK,
)
from lightsae.training import AtomicCheckpointIO, SAEModule, read_checkpoint
from lightsae.training.checkpoints.saved_settings import plain

from ..helpers import D_SAE, K, make_data, make_module, make_trainer, write_config

MADE_OF = {
    "plain": {},
    "reg 1": {
        "regularizer": OffSupportL1(0.02, batch_active_only=False),
        "aux_k": AuxK(k_aux=3, dead_after=48),
    },
    "reg 2": {"regularizer": L1L2Ratio(0.03, eps=1e-4), "normalization": "layer_norm"},
    "monosemanticity loss": {
        "regularizer": MonosemanticityLoss(0.09, weight_warmup=3),
        "aux_k": AuxK(dead_after_multiple=7.5),
    },
    "another centre": {"centre": "geometric_median", "init_rows": 77, "selection": TopK(5)},
    "numbers of numpy": {
        "d_sae": np.int64(20),
        "regularizer": OffSupportL1(np.float64(0.02), np.bool_(True)),
        "aux_k": AuxK(weight=np.float32(0.5), dead_after=np.int64(9)),
    },
}


class Mine(Regularizer):
    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        return a.square().sum(dim=1).mean()


class MyTopK(TopK):
    """A rule of a user that has the name of one of this package."""


# Short names in configurations of other tests do not find what is local.
MyTopK.__name__, MyTopK.__qualname__ = "TopK", "own.<locals>.TopK"


class Weighted(TopK):
    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "weights": torch.ones(3)}


def saved(tmp_path: Path, shards: Path, **options: Any) -> tuple[SAEModule, Path]:
    module = make_module(**options)
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    return module, tmp_path / "last.ckpt"


def described(module: SAEModule) -> dict[str, Any]:
    regularizer = module.regularizer
    return {
        "d_sae": module.sae.d_sae,
        "d_in": module.sae.d_in,
        "selection": (type(module.selection), module.selection.settings()),
        "regularizer": (type(regularizer), regularizer and vars(regularizer)),
        "aux_k": module.aux_k,
        "centre": module.centre,
        "normalization": module.normalization,
        "init_rows": module.init_rows,
    }


@pytest.mark.parametrize("options", MADE_OF.values(), ids=MADE_OF)
def test_a_module_is_built_again_from_its_checkpoint_alone(
    options: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    module, path = saved(tmp_path, shards, **options)
    found = SAEModule.load_from_checkpoint(path)
    assert described(found) == described(module)
    state = module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    x = torch.randn(9, module.sae.d_in)
    assert torch.equal(found.sae(x), module.sae(x))


def test_a_run_of_the_command_line_is_loaded_with_its_own_k_and_losses(
    shards: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, trainer__max_epochs=1)
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 0
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = read_checkpoint(path)
    path = path.rename(tmp_path / "alone.ckpt")
    found = SAEModule.load_from_checkpoint(path)
    assert (found.sae.d_sae, found.sae.selection.k) == (D_SAE, K)
    assert isinstance(found.regularizer, L1L2Ratio) and found.regularizer.weight == 0.05
    assert found.aux_k == AuxK(k_aux=4, dead_after=16)
    assert torch.equal(found.sae.W_dec, content["state_dict"]["sae.W_dec"])


def test_weights_alone_and_double_precision_are_loaded_as_they_were(
    shards: Path, tmp_path: Path
) -> None:
    best = ModelCheckpoint(tmp_path, filename="best", save_weights_only=True)
    module = make_module(aux_k=AuxK(k_aux=3, dead_after=48))
    make_trainer(tmp_path, max_epochs=1, callbacks=[best], precision="64-true").fit(
        module, make_data(shards)
    )
    found = SAEModule.load_from_checkpoint(tmp_path / "best.ckpt")
    assert found.aux_k == AuxK(k_aux=3, dead_after=48)
    assert found.sae.W_enc.dtype == torch.float64
    assert torch.equal(found.sae.W_enc, module.sae.W_enc)


def test_what_is_given_stands_above_what_was_saved(shards: Path, tmp_path: Path) -> None:
    _, path = saved(tmp_path, shards, regularizer=OffSupportL1(0.02))
    assert SAEModule.load_from_checkpoint(path, regularizer=None).regularizer is None
    with pytest.raises(LightsaeError, match=f"{path} is a checkpoint of another model: .*'k': 3"):
        SAEModule.load_from_checkpoint(path, selection=TopK(2))


def test_a_class_of_one_s_own_is_named_and_must_be_given(shards: Path, tmp_path: Path) -> None:
    _, path = saved(tmp_path, shards, regularizer=Mine(0.02))
    name = f"{Mine.__module__}.Mine"
    with pytest.raises(LightsaeError) as caught:
        SAEModule.load_from_checkpoint(path)
    assert str(caught.value) == (
        f"{path}: its regularizer is {name}, which is not of this package: "
        "give load_from_checkpoint regularizer=..."
    )
    assert isinstance(SAEModule.load_from_checkpoint(path, regularizer=Mine(1)).regularizer, Mine)


def test_a_selection_of_one_s_own_is_not_taken_for_ours_of_that_name(
    shards: Path, tmp_path: Path
) -> None:
    _, path = saved(tmp_path, shards, selection=MyTopK(K))
    name = rf"{MyTopK.__module__}\.{MyTopK.__qualname__}"
    says = rf"^{path}: its selection is {name}, which is not of this package: gi"
    with pytest.raises(LightsaeError, match=says):
        SAEModule.load_from_checkpoint(path)
    with pytest.raises(LightsaeError, match=f"^{path} is a checkpoint of another model: .*TopK"):
        SAEModule.load_from_checkpoint(path, selection=TopK(K))
    found = SAEModule.load_from_checkpoint(path, selection=MyTopK(K))
    assert type(found.selection) is MyTopK


def test_an_older_checkpoint_that_names_a_selection_without_its_module_is_resumed(
    shards: Path, tmp_path: Path
) -> None:
    _, path = saved(tmp_path, shards, selection=MyTopK(K))
    content = {**read_checkpoint(path), "selection": {"rule": "TopK", "k": K}}
    AtomicCheckpointIO().save_checkpoint(content, path)
    module = make_module(selection=MyTopK(K))
    make_trainer(tmp_path, max_epochs=2).fit(module, make_data(shards), ckpt_path=str(path))
    assert module.trainer.current_epoch == 2


def test_a_setting_that_is_many_numbers_is_named(shards: Path, tmp_path: Path) -> None:
    says = r"^setting 'weights' has shape \[3\], expected a single number"
    with pytest.raises(LightsaeError, match=says):
        saved(tmp_path, shards, selection=Weighted(K))
    with pytest.raises(LightsaeError, match=r"^setting 'w' has shape \[2\], expected a single nu"):
        plain({"w": np.zeros(2)})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("regularizer", {"class": "os.system", "weight": 1.0}),
        ("regularizer", {"class": "OffSupportL1", "wait": 1.0}),
        ("regularizer", 7),
        ("selection", {"rule": "os.mkdir", "path": "made"}),
        ("selection", {"rule": "TopK", "k": "many"}),
        ("aux_k", {"k_aux": -1}),
        ("normalization", "sideways"),
        ("hyper_parameters", {"_instantiator": "os.mkdir", "d_sae": "made"}),
    ],
)
def test_a_checkpoint_that_was_tampered_with_runs_nothing(
    key: str, value: Any, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, path = saved(tmp_path, shards)
    AtomicCheckpointIO().save_checkpoint({**read_checkpoint(path), key: value}, path)
    if key == "hyper_parameters":
        SAEModule.load_from_checkpoint(path)
    else:
        with pytest.raises(LightsaeError, match=rf"^{path}:? "):
            SAEModule.load_from_checkpoint(path)
    assert not Path("made").exists()


def older(path: Path, *missing: str) -> None:
    """Take out of a checkpoint what earlier versions did not write."""
    content = read_checkpoint(path)
    for key in ("regularizer", "aux_k", *missing):
        content.pop(key)
    AtomicCheckpointIO().save_checkpoint(content, path)


def test_an_older_checkpoint_takes_from_its_run_folder_what_it_does_not_say(
    shards: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "config.yaml", shards, trainer__max_epochs=1)
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run")]) == 0
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    older(path, "selection", "normalization", "hyper_parameters")
    found = SAEModule.load_from_checkpoint(path)
    assert found.sae.selection.k == K
    assert isinstance(found.regularizer, L1L2Ratio) and found.regularizer.weight == 0.05
    assert found.aux_k == AuxK(k_aux=4, dead_after=16)


def test_an_older_checkpoint_without_its_run_folder_is_loaded_without_losses(
    shards: Path, tmp_path: Path
) -> None:
    module, path = saved(tmp_path, shards, regularizer=OffSupportL1(0.02))
    older(path)
    with pytest.warns(UserWarning, match=f"{path}: does not say its regularizer and aux_k"):
        found = SAEModule.load_from_checkpoint(path)
    assert found.regularizer is None
    assert torch.equal(found.sae.W_enc, module.sae.W_enc)
    assert SAEModule.load_from_checkpoint(path, regularizer=None, aux_k=None).aux_k is None


def test_an_older_checkpoint_that_nothing_tells_the_selection_of_is_refused(
    shards: Path, tmp_path: Path
) -> None:
    _, path = saved(tmp_path, shards)
    older(path, "selection")
    with pytest.raises(LightsaeError, match=f"{path}: does not say its selection rule"):
        SAEModule.load_from_checkpoint(path, regularizer=None, aux_k=None)
    found = SAEModule.load_from_checkpoint(path, selection=TopK(K), regularizer=None, aux_k=None)
    assert found.sae.selection.k == K


def test_a_config_of_another_run_beside_it_is_not_believed(shards: Path, tmp_path: Path) -> None:
    _, path = saved(tmp_path, shards)
    older(path, "selection")
    other = write_config(tmp_path / "config.yaml", shards, model__init_args__d_sae=7)
    assert yaml.safe_load(other.read_text())["model"]["init_args"]["d_sae"] == 7
    with pytest.raises(LightsaeError, match=f"{path}: does not say its selection rule"):
        SAEModule.load_from_checkpoint(path, regularizer=None, aux_k=None)


def test_a_file_that_holds_no_autoencoder_is_named(shards: Path, tmp_path: Path) -> None:
    _, path = saved(tmp_path, shards)
    AtomicCheckpointIO().save_checkpoint({**read_checkpoint(path), "state_dict": {}}, path)
    with pytest.raises(LightsaeError, match=f"{path}: holds no autoencoder: it has no sae.W_enc"):
        SAEModule.load_from_checkpoint(path)


class Named(SAEModule):
    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.name = name


def test_a_class_with_more_arguments_is_built_with_all_of_them(
    shards: Path, tmp_path: Path
) -> None:
    module = Named("mine", d_sae=D_SAE, selection=TopK(K), regularizer=OffSupportL1(0.02))
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    found = Named.load_from_checkpoint(tmp_path / "last.ckpt")
    assert (found.name, described(found)) == ("mine", described(module))


def test_names_that_compiling_put_into_a_checkpoint_do_not_matter(
    shards: Path, tmp_path: Path
) -> None:
    module, path = saved(tmp_path, shards)
    content = read_checkpoint(path)
    state = content["state_dict"].items()
    content["state_dict"] = {name.replace("sae.", "sae._orig_mod."): t for name, t in state}
    AtomicCheckpointIO().save_checkpoint(content, path)
    found = SAEModule.load_from_checkpoint(path)
    assert torch.equal(found.sae.W_enc, module.sae.W_enc)
    assert main(["export", str(path), "--out", str(tmp_path / "sae")]) == 0
