"""Gemma Scope's files of both versions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.formats import gemma_scope
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK, Transcoder
from tests.interop.helpers import assert_same
from tests.interop.libraries.gemma_scope import GemmaScope
from tests.interop.libraries.weights import (
    RandomWeights,
    assert_agree,
    assert_same_function,
    rows,
    same_tensors,
)


@pytest.mark.parametrize("version", [1, 2])
def test_an_autoencoder_is_read_as_gemma_scope_computes_it(tmp_path: Path, version: int):
    library = GemmaScope()
    folder = library.save_1(tmp_path) if version == 1 else library.save_2(tmp_path)
    sae = load_foreign(folder)
    assert isinstance(sae.selection, JumpReLU)
    assert sae.provenance["version"] == str(version)
    assert_agree(sae, library, rows())


def test_a_pre_activation_at_its_threshold_is_off(tmp_path: Path):
    library = GemmaScope()
    library.weights = RandomWeights(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4))
    library.threshold = torch.tensor([1.0, 2.0, 3.0, 0.0])
    code = load_foreign(library.save_2(tmp_path)).encode(torch.tensor([[1.0, 2.5, 3.0, 0.0]]))
    assert code.to_dense().tolist() == [[0.0, 2.5, 0.0, 0.0]]


def test_version_1_may_be_named_by_its_file(tmp_path: Path):
    folder = GemmaScope().save_1(tmp_path)
    assert_same(load_foreign(folder / "params.npz"), load_foreign(folder))


def test_the_l0_and_the_place_of_version_2_are_kept(tmp_path: Path):
    sae = load_foreign(GemmaScope().save_2(tmp_path))
    assert sae.selection.k == 20
    assert sae.provenance["model"] == "google/gemma-3-4b-it"
    assert sae.provenance["hook"] == "model.layers.17.output"


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_read_is_written_again_to_the_bit(tmp_path: Path, version: int):
    library, out = GemmaScope(), tmp_path / "out"
    source = tmp_path / "in"
    sae = load_foreign(library.save_1(source) if version == 1 else library.save_2(source))
    export_foreign(sae, out, "gemma_scope")
    written = load_file(out / "params.safetensors")
    assert same_tensors(written, {name.lower(): t for name, t in library.tensors().items()})
    if version == 2:
        assert json.loads((out / "config.json").read_text()) == library.config()
    assert_same(load_foreign(out), sae)


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_a_transcoder_is_read_as_gemma_scope_computes_it(tmp_path: Path, affine: bool):
    library = GemmaScope("transcoder", affine=affine)
    made = load_foreign(library.save_2(tmp_path))
    assert isinstance(made, Transcoder) and (made.W_skip is not None) == affine
    assert_agree(made, library, rows())
    assert made.provenance["hook"] == "model.layers.17.pre_feedforward_layernorm.output"
    assert made.provenance["target_hook"] == "model.layers.17.post_feedforward_layernorm.output"


@pytest.mark.parametrize("changes", [{"type": "sae"}, {"hf_hook_point_out": None}])
def test_a_transcoder_is_told_from_its_type_or_its_places(
    tmp_path: Path, changes: dict[str, object]
):
    GemmaScope("transcoder").save_2(tmp_path, **changes)
    assert isinstance(load_foreign(tmp_path), Transcoder)


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_a_transcoder_that_is_read_is_written_again_to_the_bit(tmp_path: Path, affine: bool):
    library, out = GemmaScope("transcoder", affine=affine), tmp_path / "out"
    made = load_foreign(library.save_2(tmp_path / "in"))
    export_foreign(made, out, "gemma_scope")
    written = load_file(out / "params.safetensors")
    assert same_tensors(written, {name.lower(): t for name, t in library.tensors().items()})
    assert json.loads((out / "config.json").read_text()) == library.config()
    assert_same(load_foreign(out), made)


def test_a_batch_top_k_is_written_as_its_threshold(tmp_path: Path):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, BatchTopK(8))
    sae.initialize_(rows())
    sae.selection.threshold.fill_(0.25)
    export_foreign(sae, tmp_path / "out", "gemma_scope")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize(
    ("sae", "said"),
    [
        (SparseAutoencoder(4, 8, TopK(2)), "gemma_scope has no rule TopK"),
        (SparseAutoencoder(4, 8, BatchTopK(2)), "BatchTopK has no threshold yet"),
        (SparseAutoencoder(4, 8, JumpReLU(2), "layer_norm"), "layer_norm cannot be written as"),
    ],
)
def test_what_gemma_scope_has_no_place_for_is_refused(sae: SparseAutoencoder, said: str):
    with pytest.raises(LightsaeError, match=said):
        gemma_scope.files(sae)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "topk"}, "architecture is 'topk', expected 'jump_relu'"),
        ({"affine_connection": True}, "tensor 'affine_skip_connection' is missing"),
        ({"affine_connection": "yes"}, "'affine_connection' is 'yes', expected bool"),
        ({"type": "crosscoder"}, "type is 'crosscoder', expected 'sae' or 'transcoder'"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
):
    GemmaScope().save_2(tmp_path, **change)
    with pytest.raises(LightsaeError, match=said):
        load_foreign(tmp_path)


def test_a_scaling_factor_is_refused_unless_it_is_1(tmp_path: Path):
    arrays = {name: tensor.numpy() for name, tensor in GemmaScope().tensors().items()}
    np.savez(tmp_path / "params.npz", scaling_factor=np.ones(96, np.float32), **arrays)
    assert load_foreign(tmp_path).d_sae == 96
    np.savez(tmp_path / "params.npz", scaling_factor=np.full(96, 2, np.float32), **arrays)
    with pytest.raises(LightsaeError, match="scaling_factor is not 1"):
        load_foreign(tmp_path)


def test_thresholds_of_another_length_are_refused(tmp_path: Path):
    arrays = {name: tensor.numpy() for name, tensor in GemmaScope().tensors().items()}
    np.savez(tmp_path / "params.npz", **arrays | {"threshold": np.ones(5, np.float32)})
    with pytest.raises(LightsaeError, match=r"tensor 'threshold' has shape \[5\]"):
        load_foreign(tmp_path)
