"""VISAEBench's files."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign
from lightsae.interop.formats import visaebench
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, TopK
from tests.interop.helpers import assert_same
from tests.interop.libraries.visaebench import Visaebench
from tests.interop.libraries.weights import (
    assert_agree,
    assert_same_function,
    rows,
    same_tensors,
)

ACTIVATIONS = ["topk", "batchtopk", "jumprelu"]


@pytest.mark.parametrize("names", ["simple", "overcomplete"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_autoencoder_is_read_as_visaebench_computes_it(
    tmp_path: Path, activation: str, names: str
):
    library = Visaebench(activation, names)
    assert_agree(load_foreign(library.save(tmp_path)), library, rows())


@pytest.mark.parametrize("name", ["sae.pt", "model.safetensors", "model.pt"])
def test_weights_may_have_each_of_the_three_names(tmp_path: Path, name: str):
    library = Visaebench()
    assert_agree(load_foreign(library.save(tmp_path, name)), library, rows())


def test_a_configuration_may_be_yaml(tmp_path: Path):
    library = Visaebench()
    library.save(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(library.config()))
    sae = load_foreign(tmp_path)
    assert_agree(sae, library, rows())
    assert sae.provenance["config"] == library.config()


def test_aliases_of_yaml_are_refused(tmp_path: Path):
    Visaebench().save(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.yaml").write_text("activation: topk\na: &a [x, x]\nb: [*a, *a]\n")
    with pytest.raises(LightsaeError, match=r"config\.yaml has YAML aliases"):
        load_foreign(tmp_path, "visaebench")


def test_an_activation_at_the_threshold_of_a_batchtopk_is_on(tmp_path: Path):
    sae = load_foreign(Visaebench("batchtopk", threshold=0.5).save(tmp_path))
    least = sae.selection.threshold
    assert least < 0.5 and not torch.tensor(0.5) <= least
    assert torch.nextafter(least, torch.tensor(torch.inf)) == 0.5


def test_the_threshold_of_the_configuration_goes_first(tmp_path: Path):
    library = Visaebench("batchtopk", threshold=2.5)
    sae = load_foreign(library.save(tmp_path))
    library.threshold = torch.tensor(2.5)
    assert_agree(sae, library, rows())


def test_a_batchtopk_without_a_threshold_has_none(tmp_path: Path):
    library = Visaebench("batchtopk", k=8)
    library.tensors = Visaebench("topk").tensors  # type: ignore[method-assign]
    selection = load_foreign(library.save(tmp_path)).selection
    assert isinstance(selection, BatchTopK) and selection.k == 8 and selection.threshold == -1


def test_a_jumprelu_without_thresholds_has_visaebenchs_own(tmp_path: Path):
    library = Visaebench("jumprelu")
    library.tensors = Visaebench("topk").tensors  # type: ignore[method-assign]
    sae = load_foreign(library.save(tmp_path))
    library.jump_thresholds = torch.full((96,), 0.01)
    assert_agree(sae, library, rows())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_read_is_written_again_to_the_bit(tmp_path: Path, activation: str):
    library = Visaebench(activation, k=8)
    sae = load_foreign(library.save(tmp_path / "in"))
    export_foreign(sae, tmp_path / "out", "visaebench")
    written, expected = load_file(tmp_path / "out" / "model.safetensors"), library.tensors()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    if activation == "batchtopk":
        assert config.pop("threshold") == expected.pop("_running_threshold")
    assert same_tensors(written, expected)
    assert config == library.config()
    assert_same(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize("least", [0.0, 1e-45, 0.25])
def test_thresholds_of_ours_come_back(tmp_path: Path, least: float):
    sae = SparseAutoencoder(4, 8, BatchTopK(2), "none", apply_b_dec_to_input=False)
    sae.selection.threshold.fill_(least)
    export_foreign(sae, tmp_path / "out", "visaebench")
    found = load_foreign(tmp_path / "out").selection.threshold
    assert found == least


@pytest.mark.parametrize("rule", [TopK(8), BatchTopK(8), JumpReLU(8)])
def test_an_autoencoder_of_ours_is_the_same_function(tmp_path: Path, rule: TopK):
    torch.manual_seed(0)
    sae = SparseAutoencoder(24, 96, rule)
    sae.initialize_(rows())
    if not isinstance(rule, TopK):
        sae.selection.threshold.data.fill_(0.25)
    export_foreign(sae, tmp_path / "out", "visaebench")
    assert_same_function(load_foreign(tmp_path / "out"), sae)


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (Visaebench("gated"), "activation is 'gated', expected one of topk, batchtopk, jumprelu"),
        (Visaebench("topk", k=None), "'k' is missing, expected int"),
        (Visaebench("topk", input_dim=23), r"has shape \[96, 24\], expected \[d_sae = 96, d_in ="),
        (Visaebench("batchtopk", threshold="high"), "'threshold' is 'high', expected float"),
    ],
)
def test_what_cannot_be_represented_is_refused(tmp_path: Path, library: Visaebench, said: str):
    with pytest.raises(LightsaeError, match=said):
        load_foreign(library.save(tmp_path), "visaebench")


def test_normalisation_by_row_has_no_place():
    with pytest.raises(LightsaeError, match="unit_norm cannot be written as visaebench"):
        visaebench.files(SparseAutoencoder(4, 8, TopK(2), "unit_norm"))
