"""ViT-Prisma's files."""

import json
from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.formats import prisma
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK
from tests.interop.helpers import assert_same
from tests.interop.libraries.prisma import Prisma
from tests.interop.libraries.weights import (
    assert_agree,
    assert_same_function,
    rows,
    same_tensors,
)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale", "none", None])
@pytest.mark.parametrize("activation", ["topk", "relu"])
def test_an_autoencoder_is_read_as_prisma_computes_it(
    tmp_path: Path, activation: str, norm: str | None
):
    library = Prisma(activation, norm)
    assert_agree(load_foreign(library.save(tmp_path)), library, rows())


def test_a_checkpoint_with_prismas_own_class_is_read_without_it(tmp_path: Path):
    library = Prisma()
    sae = load_foreign(library.save_whole(tmp_path / "n_images_2600058.pt"))
    assert_agree(sae, library, rows())
    config = sae.provenance["config"]
    assert config | library.config() == config
    assert config["dtype"] == "torch.float32"


def test_a_folder_of_checkpoints_leaves_out_their_sparsity(tmp_path: Path):
    folder = Prisma().save(tmp_path, "n_images_520028.pt")
    torch.save(torch.zeros(96), folder / "n_images_520028_log_feature_sparsity.pt")
    assert load_foreign(folder).d_sae == 96
    Prisma().save(tmp_path, "n_images_780042.pt")
    with pytest.raises(LightsaeError, match=r"has 2 \.pt files of weights: name the one to read"):
        load_foreign(folder, "prisma")
    assert load_foreign(folder / "n_images_780042.pt").d_sae == 96


def test_model_and_place_are_kept(tmp_path: Path):
    provenance = load_foreign(Prisma().save(tmp_path)).provenance
    assert provenance["hook"] == "blocks.9.hook_resid_post"
    assert provenance["layer"] == 9
    assert provenance["model"].startswith("open-clip:laion/")


def test_layer_norm_is_prismas_default(tmp_path: Path):
    library = Prisma()
    folder = library.save(tmp_path)
    config = library.config()
    del config["normalize_activations"]
    (folder / "config.json").write_text(json.dumps(config))
    assert_agree(load_foreign(folder), library, rows())


@pytest.mark.parametrize("norm", ["layer_norm", "none"])
@pytest.mark.parametrize("activation", ["topk", "relu"])
def test_what_is_read_is_written_again_to_the_bit(tmp_path: Path, activation: str, norm: str):
    library = Prisma(activation, norm)
    sae = load_foreign(library.save(tmp_path / "in"))
    export_foreign(sae, tmp_path / "out", "prisma")
    written = torch.load(tmp_path / "out" / "weights.pt", weights_only=True)
    assert same_tensors(written, library.state())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == library.config() | {"_device": "cpu"}
    assert_same(load_foreign(tmp_path / "out"), sae)


def test_rows_of_one_norm_are_written_again(tmp_path: Path):
    sae = load_foreign(Prisma("topk", "constant_norm_rescale").save(tmp_path / "in"))
    export_foreign(sae, tmp_path / "out", "prisma")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize("subtracts", [True, False])
def test_an_autoencoder_of_ours_is_the_same_function(tmp_path: Path, subtracts: bool):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, TopK(8), apply_b_dec_to_input=subtracts)
    sae.initialize_(rows())
    export_foreign(sae, tmp_path / "out", "prisma")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize(
    ("sae", "said"),
    [
        (SparseAutoencoder(4, 9, TopK(2)), "d_sae = 9 only as a multiple of d_in = 4"),
        (SparseAutoencoder(4, 8, BatchTopK(2)), "prisma has no rule BatchTopK"),
        (SparseAutoencoder(4, 8, TopK(2), "layer_norm"), "layer_norm cannot be written as prisma"),
    ],
)
def test_what_prisma_has_no_place_for_is_refused(sae: SparseAutoencoder, said: str):
    with pytest.raises(LightsaeError, match=said):
        prisma.files(sae)


def test_thresholds_have_no_place():
    sae = SparseAutoencoder(4, 8, JumpReLU(2))
    with torch.no_grad():
        sae.selection.threshold.fill_(0.5)
    with pytest.raises(LightsaeError, match="prisma has ReLU without thresholds"):
        prisma.files(sae)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_transcoder": True}, "is_transcoder is set: a transcoder, not an autoencoder"),
        ({"architecture": "gated"}, "architecture is 'gated', whose gate is a second encoder"),
        ({"architecture": "jumprelu"}, "architecture is 'jumprelu', expected 'standard'"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str is 'tanh-relu', expected topk or"),
        ({"activation_fn_kwargs": {}}, "'activation_fn_kwargs' has no 'k', which Prisma needs too"),
        ({"normalize_activations": "batch"}, "normalize_activations is 'batch', expected one of"),
        ({"d_in": 23}, r"tensor 'W_enc' has shape \[24, 96\], expected \[d_in = 23, d_sae"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
):
    with pytest.raises(LightsaeError, match=said):
        load_foreign(Prisma(**change).save(tmp_path))


class Harmful:
    """Pickles into a call that would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_configuration_that_would_run_code_is_not_run(tmp_path: Path):
    mark, path = tmp_path / "ran", tmp_path / "weights.pt"
    torch.save({"cfg": Harmful(mark), "state_dict": Prisma().state()}, path)
    with pytest.raises(LightsaeError, match="'cfg' is no configuration of Prisma"):
        load_foreign(path, "prisma")
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02cposix\nsystem\n."])
def test_what_is_no_file_of_prisma_is_not_taken_for_one(tmp_path: Path, content: bytes):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert not prisma.recognizes(path)
    with pytest.raises(LightsaeError):
        prisma.read(path)
