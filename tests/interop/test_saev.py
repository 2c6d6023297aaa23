"""saev's files: read, refused, and written so that saev's own `load` has them."""

import json
from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import load_foreign
from lightsae.interop.formats import saev
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK
from tests.interop.libraries.saev import Saev, parts
from tests.interop.libraries.weights import assert_agree, assert_same_function, rows, same_tensors

SIZES = {"d_model": 24, "d_sae": 96}


@pytest.mark.parametrize("schema", [2, 3, 4, 5])
@pytest.mark.parametrize("activation", ["TopK", "BatchTopK", "Relu"])
def test_an_autoencoder_is_read_as_saev_computes_it(tmp_path: Path, activation: str, schema: int):
    library = Saev(activation, schema=schema)
    sae = load_foreign(library.save(tmp_path / "sae.pt"))
    assert_agree(sae, library, rows())


@pytest.mark.parametrize("schema", [None, 1])
def test_oldest_files_subtract_b_dec_as_the_saev_that_wrote_them_did(
    tmp_path: Path, schema: int | None
):
    """saev's present loader does not, and so computes another function than was trained."""
    library = Saev("Relu", schema=schema)
    sae = load_foreign(library.save(tmp_path / "checkpoint" / "sae.pt").parent)
    assert sae.apply_b_dec_to_input
    assert "saev's present loader does not" in sae.provenance["notes"][0]
    assert_agree(sae, library, rows())


def test_schema_1_has_its_k_beside_the_sizes(tmp_path: Path):
    library = Saev("TopK", schema=1)
    sae = load_foreign(library.save(tmp_path / "sae.pt"))
    assert_agree(sae, library, rows())


def test_negative_values_of_a_row_with_fewer_than_k_positive_ones_are_lost(tmp_path: Path):
    library = Saev("TopK", top_k=90)
    sae = load_foreign(library.save(tmp_path / "sae.pt"))
    code, theirs = sae.encode(rows()).to_dense(), library.encode(rows().double())
    assert (theirs < 0).any()
    torch.testing.assert_close(code.double(), theirs.relu(), rtol=1e-5, atol=1e-5)
    assert "saev's TopK keeps negative ones too" in sae.provenance["notes"][0]


def test_a_threshold_that_is_not_positive_keeps_what_is(tmp_path: Path):
    library = Saev("BatchTopK", threshold=-1.0)
    assert_agree(load_foreign(library.save(tmp_path / "sae.pt")), library, rows())


def test_a_batch_top_k_of_before_thresholds_has_none(tmp_path: Path):
    library = Saev("BatchTopK", schema=3)
    library.tensors = lambda: Saev("TopK").tensors()  # type: ignore[method-assign]
    selection = load_foreign(library.save(tmp_path / "sae.pt")).selection
    assert isinstance(selection, BatchTopK) and selection.k == 8 and selection.threshold == -1


@pytest.mark.parametrize("activation", ["TopK", "BatchTopK", "Relu"])
def test_what_is_read_is_written_again_to_the_bit(tmp_path: Path, activation: str):
    source = Saev(activation).save(tmp_path / "sae.pt")
    content = saev.files(load_foreign(source))["sae.pt"]
    (tmp_path / "again.pt").write_bytes(content)
    header, tensors = parts(source)
    again, written = parts(tmp_path / "again.pt")
    assert same_tensors(written, tensors)
    assert again["cfg"].keys() == header["cfg"].keys()
    assert again["cfg"]["activation"]["cls"] == activation
    assert {key: again[key] for key in ("schema", "commit", "lib")} == {
        key: header[key] for key in ("schema", "commit", "lib")
    }


def test_the_configuration_is_kept_in_the_provenance(tmp_path: Path):
    library = Saev("TopK")
    provenance = load_foreign(library.save(tmp_path / "sae.pt")).provenance
    assert provenance["format"] == "saev"
    assert provenance["config"] == json.loads(json.dumps(library.header()))


def test_scale_and_b_dec_of_ours_are_folded(tmp_path: Path):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, TopK(8))
    sae.initialize_(rows())
    (tmp_path / "sae.pt").write_bytes(saev.files(sae)["sae.pt"])
    assert_same_function(load_foreign(tmp_path / "sae.pt"), sae)


def test_what_saev_has_no_place_for_is_refused():
    sae = SparseAutoencoder(4, 8, JumpReLU(2))
    with torch.no_grad():
        sae.selection.threshold.fill_(0.5)
    with pytest.raises(LightsaeError, match="saev has no threshold for each latent: export it as"):
        saev.files(sae)
    with pytest.raises(LightsaeError, match="unit_norm cannot be written as saev"):
        saev.files(SparseAutoencoder(4, 8, TopK(2), "unit_norm"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 6}, "schema is 6, expected 1 to 5 or none"),
        ({"cfg": []}, "'cfg' is "),
        ({"cfg": SIZES}, "'activation' is missing"),
        (
            {"cfg": SIZES | {"activation": {"cls": "AbsBatchTopK", "params": {}}}},
            "activation 'AbsBatchTopK' is none of Relu, TopK and BatchTopK",
        ),
        (
            {"cfg": {**SIZES, "d_model": 23, "activation": {"cls": "Relu", "params": {}}}},
            r"tensor 'W_enc' has shape \[24, 96\], expected \[d_in = 23, d_sae = 96\]",
        ),
    ],
)  # fmt: skip
def test_another_header_is_refused_in_a_line(tmp_path: Path, change: dict[str, object], said: str):
    library = Saev("TopK")
    header = library.header() | change
    library.header = lambda: header  # type: ignore[method-assign]
    with pytest.raises(LightsaeError, match=said) as error:
        load_foreign(library.save(tmp_path / "sae.pt"), "saev")
    assert str(tmp_path / "sae.pt") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"{}\n", b'{"schema": 5}' * 9, b"\x80\x02."])
def test_what_is_no_file_of_saev_is_not_taken_for_one(tmp_path: Path, content: bytes):
    path = tmp_path / "sae.pt"
    path.write_bytes(content)
    assert not saev.recognizes(path)
    with pytest.raises(LightsaeError):
        saev.read(path)
