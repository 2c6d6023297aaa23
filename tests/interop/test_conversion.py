"""Formats are told from their files; folders that hold something are left alone."""

import shutil
from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS, export_foreign, load_foreign
from lightsae.interop.registry import format_of
from lightsae.sae import SparseAutoencoder, TopK

from .examples import example
from .helpers import assert_same, relative, rows
from .ours import RULES, ours


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_told_from_its_files(name: str, tmp_path: Path) -> None:
    sae = example(name)
    export_foreign(sae, tmp_path / "theirs", name)
    assert name == format_of(tmp_path / "theirs").NAME
    found, x = load_foreign(tmp_path / "theirs"), rows(4)
    assert found.provenance["format"] == name
    assert relative(found(x), sae(x)) < 1e-5


@pytest.mark.parametrize("name", FORMATS)
def test_what_came_from_a_format_goes_back_as_it_was(name: str, tmp_path: Path) -> None:
    export_foreign(example(name), tmp_path / "theirs", name)
    found = load_foreign(tmp_path / "theirs")
    export_foreign(found, tmp_path / "back", name)
    again, x = load_foreign(tmp_path / "back"), rows(4)
    assert type(again.selection) is type(found.selection)
    assert again.selection.settings() == found.selection.settings()
    assert again.normalization == found.normalization
    # A logarithm or a sum that is folded may cost the last digit.
    torch.testing.assert_close(again.state_dict(), found.state_dict(), rtol=1e-6, atol=1e-7)
    assert relative(again(x), found(x)) < 1e-6


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_read_can_be_saved_and_needs_the_files_no_longer(name: str, tmp_path: Path) -> None:
    export_foreign(example(name), tmp_path / "theirs", name)
    found = load_foreign(tmp_path / "theirs")
    shutil.rmtree(tmp_path / "theirs")
    found.save(tmp_path / "ours")
    again = SparseAutoencoder.load(tmp_path / "ours")
    assert_same(again, found)
    assert again.provenance == found.provenance


@pytest.mark.parametrize("name", FORMATS)
def test_half_precision_stays(name: str, tmp_path: Path) -> None:
    sae = example(name).to(torch.bfloat16)
    export_foreign(sae, tmp_path / "theirs", name)
    found = load_foreign(tmp_path / "theirs")
    assert found.W_enc.dtype == torch.bfloat16
    assert torch.equal(found.W_enc, sae.W_enc)


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if name not in ("openai", "overcomplete")]
)
def test_half_precision_is_not_rounded_again_where_it_is_folded(name: str, tmp_path: Path) -> None:
    sae = ours("JumpReLU" if name == "gemma_scope" else "TopK", "variance", d_in=4, d_sae=12)
    sae.scale.fill_(1.7)
    sae.to(torch.bfloat16)
    export_foreign(sae, tmp_path / "theirs", name)
    found, x = load_foreign(tmp_path / "theirs"), rows(4)
    assert found.W_enc.dtype == torch.float32
    assert relative(found(x), sae.float()(x)) < 1e-5


@pytest.mark.parametrize("rule", RULES)
def test_folding_changes_nothing_but_the_weights(rule: str, tmp_path: Path) -> None:
    sae, x = ours(rule), rows(8)
    state = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    format_name = "sparsify" if rule == "GroupMax" else "dictionary_learning"
    export_foreign(sae, tmp_path / "theirs", format_name, fold=True)
    assert relative(load_foreign(tmp_path / "theirs")(x), sae(x)) < 1e-5
    torch.testing.assert_close(sae.state_dict(), state, rtol=0, atol=0)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LightsaeError, match=r"holds notes.txt: choose an empty folder"):
        export_foreign(ours("TopK"), tmp_path, "saelens")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(LightsaeError, match=r"notes.txt is a file"):
        export_foreign(ours("TopK"), tmp_path / "notes.txt", "saelens")


def test_nothing_is_written_of_what_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="saelens has no rule GroupMax, expected one of TopK"):
        export_foreign(ours("GroupMax"), tmp_path / "sae", "saelens")
    with pytest.raises(
        LightsaeError, match="normalization layer_norm cannot be written as saelens"
    ):
        export_foreign(ours("TopK", "layer_norm"), tmp_path / "sae", "saelens")
    broken = ours("TopK")
    broken.W_dec.data[3, 1] = torch.nan
    with pytest.raises(LightsaeError, match="W_dec has NaN or infinite values"):
        export_foreign(broken, tmp_path / "sae", "saelens")
    assert not (tmp_path / "sae").exists()


def test_what_is_of_no_format_is_said_with_all_there_are(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"is of no known format: saelens: cfg.json and"):
        load_foreign(tmp_path)
    with pytest.raises(LightsaeError, match="format is 'numpy', expected one of saelens"):
        load_foreign(tmp_path, "numpy")


def test_our_own_folder_needs_no_import(tmp_path: Path) -> None:
    SparseAutoencoder(4, 8, TopK(2)).save(tmp_path)
    with pytest.raises(LightsaeError, match=r"is of lightsae itself: SparseAutoencoder.load"):
        load_foreign(tmp_path)
