"""Files of openai/sparse_autoencoder: read, refused, and written for its `from_state_dict`."""

from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.formats import openai
from lightsae.sae import BatchTopK, SparseAutoencoder, TopK
from tests.interop.helpers import assert_same
from tests.interop.libraries.openai import OpenAI
from tests.interop.libraries.weights import assert_agree, assert_same_function, rows


@pytest.mark.parametrize("activation", ["TopK", "ReLU"])
def test_an_autoencoder_is_read_as_openai_computes_it(tmp_path: Path, activation: str):
    library = OpenAI(activation)
    sae = load_foreign(library.save(tmp_path / "6.pt"))
    assert_agree(sae, library, rows())


def test_the_epsilon_of_layer_norm_counts_on_rows_that_hardly_vary(tmp_path: Path):
    library = OpenAI("TopK")
    sae = load_foreign(library.save(tmp_path / "6.pt"))
    assert_agree(sae, library, rows(spread=1e-3).double().mul(1e-3).add(0.5).float(), 1e-3)


@pytest.mark.parametrize("activation", ["TopK", "ReLU"])
def test_what_is_read_is_written_again_to_the_bit(tmp_path: Path, activation: str):
    """But for the second k and postact_fn, at which openai's own `from_state_dict` stops."""
    library = OpenAI(activation)
    sae = load_foreign(library.save(tmp_path / "6.pt"))
    export_foreign(sae, tmp_path / "out", "openai")
    written = torch.load(tmp_path / "out" / "autoencoder.pt", weights_only=True)
    expected = {
        name: value
        for name, value in library.state().items()
        if name not in ("activation.k", "activation.postact_fn")
    }
    assert written.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(written[name], value), name
        else:
            assert written[name] == value, name
    assert_same(load_foreign(tmp_path / "out"), sae)


def test_weights_without_a_subtraction_are_written_with_one(tmp_path: Path):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, TopK(8), "layer_norm_unbiased", apply_b_dec_to_input=False)
    with torch.no_grad():
        sae.b_dec.normal_()
    export_foreign(sae, tmp_path / "out", "openai")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize(
    ("sae", "said"),
    [
        (SparseAutoencoder(4, 8, TopK(2)), "openai has layer_norm_unbiased before every TopK, not"),
        (SparseAutoencoder(4, 8, BatchTopK(2)), "openai has no rule BatchTopK"),
    ],
)
def test_what_openai_has_no_place_for_is_refused(sae: SparseAutoencoder, said: str):
    with pytest.raises(LightsaeError, match=said):
        openai.files(sae)


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (OpenAI("TopK", postact="Identity"), "postact_fn is 'Identity', which keeps negative"),
        (OpenAI("GELU"), "activation is 'GELU', expected TopK or ReLU"),
        (OpenAI("TopK", k=0), "'k' is 0, expected at least 1"),
        (OpenAI("TopK", k=97), "k = 97 is larger than d_sae = 96"),
    ],
)
def test_what_cannot_be_represented_is_refused(tmp_path: Path, library: OpenAI, said: str):
    with pytest.raises(LightsaeError, match=said):
        load_foreign(library.save(tmp_path / "6.pt"))


def test_a_folder_with_two_files_asks_which(tmp_path: Path):
    for name in ("6.pt", "7.pt"):
        OpenAI().save(tmp_path / name)
    assert not openai.recognizes(tmp_path)
    with pytest.raises(LightsaeError, match=r"has 2 \.pt files: name the one to read"):
        load_foreign(tmp_path, "openai")


def test_tied_weights_have_no_decoder(tmp_path: Path):
    state = OpenAI().state()
    state["decoder.linear.weight"] = state.pop("decoder.weight")
    torch.save(state, tmp_path / "6.pt")
    assert not openai.recognizes(tmp_path / "6.pt")
    with pytest.raises(LightsaeError, match=r"unknown tensor 'decoder\.linear\.weight'"):
        load_foreign(tmp_path / "6.pt", "openai")
