"""Files of OpenMOSS' Language-Model-SAEs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.formats import openmoss
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK, Transcoder
from tests.interop.helpers import assert_same
from tests.interop.libraries.openmoss import HOOK, TARGET, OpenMOSS
from tests.interop.libraries.weights import (
    assert_agree,
    assert_same_function,
    rows,
    same_tensors,
)

NORMS = ["dataset-wise", "token-wise", "inference"]


class TimesDecoderNorm:
    """OpenMOSS' codes times the norms of the decoder, which a topk looks at."""

    def __init__(self, library: OpenMOSS) -> None:
        self.library = library

    def encode(self, x: Tensor) -> Tensor:
        return self.library.encode(x) * self.library.norms()

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.library.reconstruct(x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("act_fn", ["topk", "jumprelu", "relu"])
def test_an_autoencoder_is_read_as_openmoss_computes_it(tmp_path: Path, act_fn: str, norm: str):
    library = OpenMOSS(act_fn, norm, sparsity_include_decoder_norm=False)
    assert_agree(load_foreign(library.save(tmp_path)), library, rows())


@pytest.mark.parametrize("act_fn", ["jumprelu", "relu"])
def test_thresholds_that_look_at_decoder_norms_are_divided_by_them(tmp_path: Path, act_fn: str):
    library = OpenMOSS(act_fn)
    assert_agree(load_foreign(library.save(tmp_path)), library, rows())


def test_a_topk_that_looks_at_decoder_norms_has_codes_times_them(tmp_path: Path):
    library = OpenMOSS("topk")
    sae = load_foreign(library.save(tmp_path))
    assert_agree(sae, TimesDecoderNorm(library), rows())
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(96))


def test_there_may_be_no_decoder_bias(tmp_path: Path):
    library = OpenMOSS("jumprelu", use_decoder_bias=False)
    assert_agree(load_foreign(library.save(tmp_path)), library, rows())


def test_a_batchtopk_has_no_threshold_in_its_files(tmp_path: Path):
    selection = load_foreign(OpenMOSS("batchtopk").save(tmp_path)).selection
    assert isinstance(selection, BatchTopK) and selection.k == 8 and selection.threshold == -1


def test_a_checkpoint_of_torch_is_read_too(tmp_path: Path):
    library = OpenMOSS("topk")
    folder = library.save(tmp_path)
    expected = load_foreign(folder)
    (folder / "sae_weights.safetensors").unlink()
    torch.save({"sae": library.tensors(), "version": "2.0"}, folder / "sae_weights.pt")
    assert_same(load_foreign(folder), expected)


def test_names_and_layout_of_2025_are_read_too(tmp_path: Path):
    library = OpenMOSS("jumprelu")
    folder = library.save(tmp_path)
    expected = load_foreign(folder)
    now = library.tensors()
    old = {
        "encoder.weight": now["W_E"].mT.contiguous(),
        "encoder.bias": now["b_E"],
        "decoder.weight": now["W_D"].mT.contiguous(),
        "decoder.bias": now["b_D"],
        "log_jumprelu_threshold": now["activation_function.log_jumprelu_threshold"],
        f"dataset_average_activation_norm.{HOOK}": torch.tensor(library.mean_norm),
    }
    save_file(old, folder / "sae_weights.safetensors")
    assert_same(load_foreign(folder), expected)


@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
def test_what_is_read_is_written_again_to_the_bit(tmp_path: Path, norm: str):
    library = OpenMOSS("topk", norm, sparsity_include_decoder_norm=False)
    sae = load_foreign(library.save(tmp_path / "in"))
    export_foreign(sae, tmp_path / "out", "openmoss")
    place = f"dataset_average_activation_norm.{HOOK}"
    written = load_file(tmp_path / "out" / "sae_weights.safetensors")
    expected = library.tensors()
    mean_norm, given = written.pop(place), expected.pop(place)
    assert same_tensors(written, expected)
    if norm == "dataset-wise":
        torch.testing.assert_close(mean_norm, given, check_dtype=False)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == library.config()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("act_fn", ["topk", "jumprelu", "relu"])
def test_what_is_read_and_written_is_the_same_function(tmp_path: Path, act_fn: str, norm: str):
    """Logarithms of thresholds, and norms of the decoder that were folded, are rounded again."""
    sae = load_foreign(OpenMOSS(act_fn, norm).save(tmp_path / "in"))
    export_foreign(sae, tmp_path / "out", "openmoss")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize("d_in, d_sae", [(49, 98), (41, 107), (7, 15)])
def test_d_sae_is_what_openmoss_makes_of_the_expansion_factor(
    tmp_path: Path, d_in: int, d_sae: int
):
    sae = SparseAutoencoder(d_in, d_sae, TopK(3))
    config = json.loads(openmoss.files(sae)["config.json"])
    assert int(config["d_model"] * config["expansion_factor"]) == d_sae


@pytest.mark.parametrize("rule", [TopK(8), BatchTopK(8), JumpReLU(8)])
def test_an_autoencoder_of_ours_is_the_same_function(tmp_path: Path, rule: TopK):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, rule)
    sae.initialize_(rows())
    if not isinstance(rule, TopK):
        sae.selection.threshold.data.fill_(0.25)
    export_foreign(sae, tmp_path / "out", "openmoss")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sae_type": "clt"}, "sae_type is 'clt', expected 'sae'"),
        (
            {"hook_point_out": TARGET, "norm": "token-wise"},
            "'token-wise', which a transcoder undoes by the norms of its targets",
        ),
        ({"hook_point_out": "elsewhere"}, "norm.elsewhere' is missing or no number above 0"),
        ({"hook_point_out": 3}, "'hook_point_out' is 3, expected str"),
        ({"use_glu_encoder": True}, "use_glu_encoder is set: a second encoder has no place"),
        (
            {"norm_activation": "batch-wise"},
            "norm_activation is 'batch-wise', expected dataset-wise",
        ),
        ({"act_fn": "layertopk"}, "act_fn is 'layertopk', expected topk, batchtopk, jumprelu or"),
        (
            {"hook_point_in": "other", "hook_point_out": "other"},
            "norm.other' is missing or no number",
        ),
        ({"d_model": 23}, r"tensor 'W_E' has shape \[24, 96\], expected \[d_in = 23, d_sae = 92\]"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
):
    with pytest.raises(LightsaeError, match=said):
        load_foreign(OpenMOSS(**{"act_fn": "topk"} | change).save(tmp_path))


def _transcoder(act_fn: str, norm: str, **changes: object) -> OpenMOSS:
    library = OpenMOSS(
        act_fn, norm, hook_point_out=TARGET, sparsity_include_decoder_norm=False, **changes
    )
    library.target_norm = 2.25
    return library


@pytest.mark.parametrize("subtracts", [False, True], ids=["", "subtracting"])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
@pytest.mark.parametrize("act_fn", ["topk", "jumprelu", "relu"])
def test_a_transcoder_is_read_as_openmoss_computes_it(
    tmp_path: Path, act_fn: str, norm: str, subtracts: bool
):
    library = _transcoder(act_fn, norm, apply_decoder_bias_to_pre_encoder=subtracts)
    made = load_foreign(library.save(tmp_path))
    assert isinstance(made, Transcoder)
    assert_agree(made, library, rows())
    assert (made.provenance["hook"], made.provenance["target_hook"]) == (HOOK, TARGET)


@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
def test_a_transcoder_that_is_read_is_written_again(tmp_path: Path, norm: str):
    library = _transcoder("topk", norm)
    made = load_foreign(library.save(tmp_path / "in"))
    export_foreign(made, tmp_path / "out", "openmoss")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == library.config()
    assert_same(load_foreign(tmp_path / "out"), made)


def test_a_transcoder_needs_two_places():
    made = Transcoder(4, 8, TopK(2))
    made.provenance = {"hook": "here", "target_hook": "here"}
    with pytest.raises(LightsaeError, match="by two places, the provenance has 'here' as hook and"):
        openmoss.files(made)


def test_layer_norm_has_no_place():
    with pytest.raises(LightsaeError, match="layer_norm cannot be written as openmoss"):
        openmoss.files(SparseAutoencoder(4, 8, TopK(2), "layer_norm"))
