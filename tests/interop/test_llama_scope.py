"""Llama Scope's files."""

import json
from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.formats import llama_scope
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK, Transcoder
from tests.interop.helpers import assert_same
from tests.interop.libraries.llama_scope import LlamaScope
from tests.interop.libraries.weights import assert_agree, assert_same_function, rows

_UNSCALED = {"in": 24**0.5, "out": 24**0.5}  # With them the loader's s is 1.
_TRANSCODES: dict[str, object] = {
    "hook_point_in": "blocks.8.ln2.hook_normalized",
    "hook_point_out": "blocks.8.hook_mlp_out",
    "dataset_average_activation_norm": {"in": 6.25, "out": 1.75},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"apply_decoder_bias_to_pre_encoder": True},
        {"sparsity_include_decoder_norm": False},
        {"act_fn": "topk"},
        {"act_fn": "relu"},
    ],
)
def test_an_autoencoder_is_read_as_its_loader_computes_it(
    tmp_path: Path, changes: dict[str, object]
):
    library = LlamaScope(act_fn=str(changes.get("act_fn", "jumprelu")))
    library.changes = changes
    assert_agree(load_foreign(library.save(tmp_path / "L8R")), library, rows())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"apply_decoder_bias_to_pre_encoder": True},
        {"sparsity_include_decoder_norm": False},
        {"norm_activation": "inference", "dataset_average_activation_norm": _UNSCALED},
    ],
)
@pytest.mark.parametrize("act_fn", ["jumprelu", "topk"])
def test_a_transcoder_is_read_as_its_loader_computes_it(
    tmp_path: Path, act_fn: str, changes: dict[str, object]
):
    library = LlamaScope(act_fn=act_fn)
    library.changes = _TRANSCODES | changes
    made = load_foreign(library.save(tmp_path / "L8TC"))
    assert isinstance(made, Transcoder)
    assert_agree(made, library, rows())
    assert made.provenance["target_hook"] == "blocks.8.hook_mlp_out"


@pytest.mark.parametrize("act_fn", ["jumprelu", "topk"])
def test_a_transcoder_that_is_read_and_written_is_read_the_same(tmp_path: Path, act_fn: str):
    library = LlamaScope(act_fn=act_fn)
    library.changes = _TRANSCODES
    made = load_foreign(library.save(tmp_path / "in"))
    export_foreign(made, tmp_path / "out", "llama_scope")
    assert_same(load_foreign(tmp_path / "out"), made)
    config = json.loads((tmp_path / "out" / "hyperparams.json").read_text())
    assert config["hook_point_out"] == "blocks.8.hook_mlp_out"


def test_k_and_place_are_kept(tmp_path: Path):
    sae = load_foreign(LlamaScope().save(tmp_path / "L8R"))
    assert isinstance(sae.selection, JumpReLU) and sae.selection.k == 8
    assert sae.provenance["hook"] == "blocks.8.hook_resid_post"


@pytest.mark.parametrize("act_fn", ["jumprelu", "topk"])
def test_what_is_read_and_written_is_read_the_same(tmp_path: Path, act_fn: str):
    """Once folded, nothing is left to fold: a mean norm of sqrt(d_in), no norms of the decoder."""
    library = LlamaScope(act_fn=act_fn)
    sae = load_foreign(library.save(tmp_path / "in"))
    export_foreign(sae, tmp_path / "out", "llama_scope")
    assert_same(load_foreign(tmp_path / "out"), sae)
    config = json.loads((tmp_path / "out" / "hyperparams.json").read_text())
    assert config["dataset_average_activation_norm"]["in"] == pytest.approx(24**0.5)
    assert config["hook_point_out"] == "blocks.8.hook_resid_post"


def test_a_batch_top_k_is_written_as_its_threshold(tmp_path: Path):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, BatchTopK(8))
    sae.initialize_(rows())
    sae.selection.threshold.fill_(0.25)
    export_foreign(sae, tmp_path / "out", "llama_scope")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


def test_a_threshold_for_each_latent_is_refused():
    sae = SparseAutoencoder(4, 8, JumpReLU(2))
    with torch.no_grad():
        sae.selection.threshold[3] = 1.0
    with pytest.raises(LightsaeError, match="one threshold for all latents: export it as openmoss"):
        llama_scope.files(sae)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _TRANSCODES | {"dataset_average_activation_norm": {"in": 2.0, "out": 0.0}},
            "expected in and out above 0",
        ),
        ({"use_glu_encoder": True}, "use_glu_encoder is set: a second encoder has no place"),
        (
            {"norm_activation": "batch-wise"},
            "norm_activation is 'batch-wise', expected dataset-wise",
        ),
        ({"dataset_average_activation_norm": {"in": 2.0}}, "'out' is missing"),
        ({"dataset_average_activation_norm": {"in": 2.0, "out": 3.0}}, "expected equal in and out"),
        ({"jump_relu_threshold": -1.0}, "jump_relu_threshold is -1.0, expected at least 0"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu', expected jumprelu, topk or relu"),
        ({"d_sae": 95}, r"has shape \[96, 24\], expected \[d_sae = 95, d_in = 24\]"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
):
    library = LlamaScope()
    library.changes = change
    with pytest.raises(LightsaeError, match=said):
        load_foreign(library.save(tmp_path / "L8R"))


def test_an_autoencoder_of_ours_with_top_k_keeps_its_k(tmp_path: Path):
    sae = SparseAutoencoder(4, 8, TopK(3), "none", apply_b_dec_to_input=False)
    export_foreign(sae, tmp_path / "out", "llama_scope")
    assert_same_function(load_foreign(tmp_path / "out"), sae)
