"""overcomplete's modules are read without overcomplete, and it takes the state dicts we write."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.sae import SparseAutoencoder, TopK

from ..helpers import assert_agrees, assert_same, rows
from ..ours import ours
from .helpers import peer

library = peer("overcomplete.sae")
D_IN, D_SAE = 24, 96
SETTINGS: dict[str, dict[str, Any]] = {
    "TopKSAE": {"top_k": 5},
    "BatchTopKSAE": {"top_k": 5 * 256},
    "JumpSAE": {},
}


def _trained(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    sae = getattr(library, kind)(D_IN, nb_concepts=D_SAE, **SETTINGS[kind], **settings)
    if kind == "JumpSAE":
        sae.thresholds.data.uniform_(-2, 1)
    if settings.get("dictionary_params", {}).get("use_multiplier"):
        sae.dictionary.multiplier.data.fill_(0.3)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
    for _ in range(8):
        x = rows(D_IN, 256)
        (x - sae(x)[2]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return sae


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("normalization", ["l2", "max_l2", "l1", "max_l1", "identity"])
def test_theirs_is_the_same_function_here(
    kind: str, mode: str, normalization: str, tmp_path: Path
) -> None:
    parameters = {"normalization": normalization, "use_multiplier": True}
    theirs, x = _trained(kind, dictionary_params=parameters), rows(D_IN)
    if mode == "eval":
        theirs.eval()
    torch.save(theirs, tmp_path / "sae.pt")
    theirs.eval()
    _, codes, x_hat = theirs(x)
    assert_agrees(load_foreign(tmp_path / "sae.pt"), x, codes, x_hat)


def _halved(weights: Tensor) -> Tensor:
    return weights / 2


def test_a_normalization_of_ones_own_is_read_where_its_result_was_saved(tmp_path: Path) -> None:
    theirs, x = _trained("TopKSAE", dictionary_params={"normalization": _halved}), rows(D_IN)
    torch.save(theirs, tmp_path / "train.pt")
    with pytest.raises(LightsaeError, match="normalization is '_halved', expected one of l2"):
        load_foreign(tmp_path / "train.pt")
    torch.save(theirs.eval(), tmp_path / "eval.pt")
    _, codes, x_hat = theirs(x)
    assert_agrees(load_foreign(tmp_path / "eval.pt"), x, codes, x_hat)


def _built(folder: Path) -> Any:
    told = json.loads((folder / "module.json").read_text())
    sae = getattr(library, told["class"])(**told["arguments"])
    sae.load_state_dict(torch.load(folder / "state_dict.pt", weights_only=True))
    return sae.eval()


@pytest.mark.parametrize("kind", SETTINGS)
def test_theirs_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    theirs, x = _trained(kind), rows(D_IN)
    torch.save(theirs.eval(), tmp_path / "sae.pt")
    sae = load_foreign(tmp_path / "sae.pt")
    export_foreign(sae, tmp_path / "back", "overcomplete")
    _, codes, x_hat = _built(tmp_path / "back")(x)
    assert_agrees(sae, x, codes, x_hat)
    again = load_foreign(tmp_path / "back")
    if kind == "TopKSAE":
        assert_same(again, sae)
    else:  # through a logarithm
        torch.testing.assert_close(again.state_dict(), sae.state_dict(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rule", ["TopK", "JumpReLU"])
@pytest.mark.parametrize("kind", ["variance", "none"])
def test_ours_is_the_same_function_there(rule: str, kind: str, tmp_path: Path) -> None:
    sae, x = ours(rule, kind, d_in=D_IN, d_sae=D_SAE), rows(D_IN)
    sae.b_dec.data.zero_()
    export_foreign(sae, tmp_path / "sae", "overcomplete")
    _, codes, x_hat = _built(tmp_path / "sae")(x)
    assert_agrees(sae, x, codes, x_hat)


def test_a_b_dec_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="adds no b_dec, and that of this autoencoder is not 0"):
        export_foreign(ours("TopK"), tmp_path / "sae", "overcomplete")
    assert not (tmp_path / "sae").exists()


def test_a_deeper_encoder_is_refused(tmp_path: Path) -> None:
    torch.save(_trained("TopKSAE", encoder_module="mlp_ln_3"), tmp_path / "sae.pt")
    with pytest.raises(LightsaeError, match="its encoder is no single linear layer"):
        load_foreign(tmp_path / "sae.pt")


def test_a_state_dict_alone_does_not_say_k(tmp_path: Path) -> None:
    torch.save(_trained("TopKSAE").state_dict(), tmp_path / "sae.pt")
    with pytest.raises(LightsaeError, match="a state dict says neither class nor k"):
        load_foreign(tmp_path / "sae.pt", "overcomplete")


def test_reading_imports_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(_trained("TopKSAE"), tmp_path / "sae.pt")
    monkeypatch.setattr("builtins.__import__", _no_overcomplete)
    sae: SparseAutoencoder = load_foreign(tmp_path / "sae.pt")
    assert isinstance(sae.selection, TopK) and sae.selection.k == 5


_import = __import__


def _no_overcomplete(name: str, *rest: Any, **more: Any) -> Any:
    assert not name.startswith("overcomplete")
    return _import(name, *rest, **more)
