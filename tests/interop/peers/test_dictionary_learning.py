"""dictionary_learning writes and we read, we write and dictionary_learning reads."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.sae import BatchTopK, TopK

from ..helpers import assert_agrees, assert_same, rows
from ..ours import ours
from .helpers import peer

trainers = peer("dictionary_learning.trainers")
training = peer("dictionary_learning.training")
utils = peer("dictionary_learning.utils")
D_IN, D_SAE, K = 24, 96, 5
TRAINERS = {
    "MatryoshkaBatchTopKTrainer": peer("dictionary_learning.trainers.matryoshka_batch_top_k"),
    "StandardTrainerAprilUpdate": peer("dictionary_learning.trainers.standard"),
}
COMMON: dict[str, Any] = {
    "activation_dim": D_IN, "dict_size": D_SAE, "layer": 7, "lm_name": "gpt2", "device": "cpu",
    "warmup_steps": 1, "lr": 1e-2, "submodule_name": "resid_post",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "TopKTrainer": {"k": K},
    "BatchTopKTrainer": {"k": K, "threshold_start_step": 2, "threshold_beta": 0.5},
    "MatryoshkaBatchTopKTrainer": {
        "k": K, "threshold_start_step": 2, "threshold_beta": 0.5, "group_fractions": [0.25, 0.75],
    },
    "StandardTrainer": {"sparsity_warmup_steps": None},
    "StandardTrainerAprilUpdate": {"sparsity_warmup_steps": None},
    "JumpReluTrainer": {"sparsity_warmup_steps": None, "target_l0": 12.0},
}  # fmt: skip


def _train(name: str, folder: Path, normalize: bool = False, **settings: Any) -> Path:
    """A few steps of its own loop; the folder that it wrote."""
    torch.manual_seed(0)
    trainer = getattr(TRAINERS.get(name, trainers), name)
    config = {"trainer": trainer, "steps": 20, **COMMON, **CASES[name], **settings}
    # It divides the batches in place and draws 100 of them for the norm.
    data = (rows(D_IN, 256).clone() for _ in range(200))
    training.trainSAE(
        data, [config], steps=20, save_dir=str(folder), device="cpu", save_steps=[19],
        normalize_activations=normalize,
    )  # fmt: skip
    return folder / "trainer_0"


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_the_same_function_here_and_comes_back(name: str, tmp_path: Path) -> None:
    folder, x = _train(name, tmp_path), rows(D_IN)
    theirs, _ = utils.load_dictionary(str(folder), "cpu")
    sae = load_foreign(folder)
    assert_agrees(sae, x, theirs.encode(x), theirs(x))
    assert (sae.provenance["model"], sae.provenance["layer"]) == ("gpt2", 7)
    export_foreign(sae, tmp_path / "back", "dictionary_learning")
    back, _ = utils.load_dictionary(str(tmp_path / "back"), "cpu")
    assert_agrees(sae, x, back.encode(x), back(x))
    again = load_foreign(tmp_path / "back")
    assert_same(again, sae)
    assert again.provenance["hook"] == "resid_post"


def test_the_class_that_no_trainer_makes(tmp_path: Path) -> None:
    theirs, x = peer("dictionary_learning.dictionary").AutoEncoderNew(D_IN, D_SAE), rows(D_IN)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoderNew"}}')
    sae = load_foreign(tmp_path)
    assert_agrees(sae, x, theirs.encode(x), theirs(x))
    export_foreign(sae, tmp_path / "back", "dictionary_learning")
    back, _ = utils.load_dictionary(str(tmp_path / "back"), "cpu")
    assert_agrees(sae, x, back.encode(x), back(x))


@pytest.mark.parametrize("name", ["TopKTrainer", "BatchTopKTrainer", "JumpReluTrainer"])
def test_a_norm_of_the_data_is_in_what_it_saves(name: str, tmp_path: Path) -> None:
    folder, x = _train(name, tmp_path, normalize=True), rows(D_IN)
    theirs, _ = utils.load_dictionary(str(folder), "cpu")
    assert_agrees(load_foreign(folder), x, theirs.encode(x), theirs(x))


def test_a_checkpoint_of_the_run_is_read_too(tmp_path: Path) -> None:
    folder = _train("TopKTrainer", tmp_path)
    path = folder / "checkpoints" / "ae_19.pt"
    theirs, x = trainers.top_k.AutoEncoderTopK.from_pretrained(str(path)), rows(D_IN)
    assert_agrees(load_foreign(path), x, theirs.encode(x), theirs(x))


def test_a_threshold_that_was_never_learned_is_refused(tmp_path: Path) -> None:
    folder = _train("BatchTopKTrainer", tmp_path, threshold_start_step=1000)
    with pytest.raises(LightsaeError, match=r"threshold was never learned \(-1\)"):
        load_foreign(folder)


def test_a_gated_autoencoder_is_refused(tmp_path: Path) -> None:
    CASES["GatedSAETrainer"] = {"sparsity_warmup_steps": None}
    try:
        folder = _train("GatedSAETrainer", tmp_path)
    finally:
        del CASES["GatedSAETrainer"]
    with pytest.raises(LightsaeError, match="dict_class is 'GatedAutoEncoder', expected one of"):
        load_foreign(folder)


@pytest.mark.parametrize("rule", ["TopK", "BatchTopK", "JumpReLU"])
@pytest.mark.parametrize("kind", ["variance", "none"])
def test_ours_is_the_same_function_there(rule: str, kind: str, tmp_path: Path) -> None:
    sae, x = ours(rule, kind, d_in=D_IN, d_sae=D_SAE), rows(D_IN)
    export_foreign(sae, tmp_path / "sae", "dictionary_learning")
    theirs, _ = utils.load_dictionary(str(tmp_path / "sae"), "cpu")
    assert_agrees(sae, x, theirs.encode(x), theirs(x))


def test_k_is_kept(tmp_path: Path) -> None:
    for rule, kind in (("TopK", TopK), ("BatchTopK", BatchTopK)):
        export_foreign(ours(rule), tmp_path / rule, "dictionary_learning")
        selection = load_foreign(tmp_path / rule).selection
        assert isinstance(selection, kind) and selection.k == 4
