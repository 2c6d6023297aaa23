"""Transcoders of ours as other libraries read them, and the formats that have none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS, export_foreign, load_foreign
from lightsae.sae import JumpReLU, SparseAutoencoder, Transcoder

from .examples import TRANSCODER_FORMATS, transcoder_example
from .helpers import assert_same, relative, rows
from .ours import our_transcoder


@pytest.mark.parametrize("fold", [False, True], ids=["", "folded"])
@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_the_function_of_the_inputs_is_the_same(name: str, fold: bool, tmp_path: Path) -> None:
    made, x = transcoder_example(name), rows(4)
    state = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    export_foreign(made, tmp_path / "theirs", name, fold=fold)
    found = load_foreign(tmp_path / "theirs")
    assert isinstance(found, Transcoder)
    codes, expected = found.encode(x).to_dense(), made.encode(x).to_dense()
    assert torch.equal(codes > 0, expected > 0)
    assert relative(codes, expected) < 1e-5
    assert relative(found(x), made(x)) < 1e-5
    torch.testing.assert_close(made.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_import_export_import_is_the_identity(name: str, tmp_path: Path) -> None:
    export_foreign(transcoder_example(name), tmp_path / "theirs", name)
    found = load_foreign(tmp_path / "theirs")
    export_foreign(found, tmp_path / "back", name)
    assert_same(load_foreign(tmp_path / "back"), found)
    found.save(tmp_path / "ours")
    assert_same(SparseAutoencoder.load(tmp_path / "ours"), found)


@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_half_precision_stays(name: str, tmp_path: Path) -> None:
    made = transcoder_example(name).to(torch.bfloat16)
    for scale in (made.scale, made.target_scale):  # Others are put into the weights.
        scale.fill_(1)
    made.b_in.zero_()
    export_foreign(made, tmp_path / "theirs", name)
    found = load_foreign(tmp_path / "theirs")
    assert found.W_dec.dtype == torch.bfloat16
    assert torch.equal(found.W_dec, made.W_dec)


@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_half_precision_is_not_rounded_again_where_it_is_folded(name: str, tmp_path: Path) -> None:
    made = transcoder_example(name).to(torch.bfloat16)
    export_foreign(made, tmp_path / "theirs", name)
    found, x = load_foreign(tmp_path / "theirs"), rows(4)
    assert found.W_dec.dtype == torch.float32
    assert relative(found(x), made.float()(x)) < 1e-5


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in TRANSCODER_FORMATS])
def test_a_format_without_transcoders_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=f"{name} has no transcoders, expected one of sparsify"):
        export_foreign(our_transcoder("TopK"), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sparsify", "llama_scope", "openmoss"])
def test_two_widths_have_no_place(name: str, tmp_path: Path) -> None:
    says = f"{name} has transcoders of one width, not d_in = 8 and d_out = 6"
    with pytest.raises(LightsaeError, match=says):
        export_foreign(our_transcoder("TopK", d_out=6), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_gemma_scope_has_two_widths(tmp_path: Path) -> None:
    made, x = our_transcoder("JumpReLU", skip=True, d_out=6), rows(8)
    export_foreign(made, tmp_path / "theirs", "gemma_scope")
    assert relative(load_foreign(tmp_path / "theirs")(x), made(x)) < 1e-5


@pytest.mark.parametrize("name", ["llama_scope", "openmoss"])
def test_a_skip_has_no_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=f"{name} has no place for the skip"):
        export_foreign(our_transcoder("TopK", skip=True), tmp_path / "out", name)


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_unbiased", "unit_norm"])
@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_rows_that_are_normalised_one_by_one_have_no_place(
    name: str, kind: str, tmp_path: Path
) -> None:
    made = our_transcoder(type(transcoder_example(name).selection).__name__, kind)
    with pytest.raises(LightsaeError, match=f"normalization {kind} cannot be written as {name}"):
        export_foreign(made, tmp_path / "out", name)


def test_a_place_of_the_targets_that_is_not_known_gets_a_name_of_its_own(tmp_path: Path) -> None:
    made = our_transcoder("TopK")
    made.provenance = {"hook": "blocks.3.ln2", "target_hook": 7}
    export_foreign(made, tmp_path / "theirs", "openmoss")
    found = load_foreign(tmp_path / "theirs")
    assert isinstance(found, Transcoder)
    assert found.provenance["target_hook"] == "target of blocks.3.ln2"


@pytest.mark.parametrize(
    ("name", "tensor"), [("sparsify", "W_skip"), ("gemma_scope", "affine_skip_connection")]
)
def test_a_skip_that_is_malformed_is_refused(name: str, tensor: str, tmp_path: Path) -> None:
    export_foreign(transcoder_example(name), tmp_path, name)
    path = next(tmp_path.glob("*.safetensors"))
    tensors = load_file(path)
    for broken, says in (
        (torch.ones(4, 3), r"shape \[4, 3\]"),
        (torch.full((4, 4), torch.nan), "has NaN or infinite values"),
    ):
        save_file(tensors | {tensor: broken}, path)
        with pytest.raises(LightsaeError, match=f"{tensor}' .*{says}"):
            load_foreign(tmp_path)


def test_thresholds_are_kept_in_float32(tmp_path: Path) -> None:
    made = our_transcoder("JumpReLU").to(torch.bfloat16)
    export_foreign(made, tmp_path / "theirs", "gemma_scope")
    found = load_foreign(tmp_path / "theirs").selection
    assert isinstance(found, JumpReLU) and found.threshold.dtype == torch.float32
