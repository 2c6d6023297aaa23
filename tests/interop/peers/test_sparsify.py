"""sparsify writes and we read, we write and sparsify reads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.interop import export_foreign, load_foreign
from lightsae.sae import Transcoder

from ..helpers import assert_agrees, assert_same, rows
from ..ours import our_transcoder, ours
from .helpers import peer

sparsify = peer("sparsify")
D_IN, D_SAE, K = 24, 96, 8


def _trained(**settings: Any) -> Any:
    """A few steps of its own objective, from biases that are not 0."""
    torch.manual_seed(0)
    coder = sparsify.SparseCoder(
        D_IN, sparsify.SparseCoderConfig(num_latents=D_SAE, k=K, **settings)
    )
    coder.b_dec.data.normal_()
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-2)
    for _ in range(8):
        x = rows(D_IN, 256)
        y = x.roll(1, dims=1).tanh() if coder.cfg.transcode else x
        coder(x, y).fvu.backward()
        optimizer.step()
        optimizer.zero_grad()
    return coder


def _codes(coder: Any, x: Tensor) -> Tensor:
    encoded = coder.encode(x)
    return torch.zeros(len(x), D_SAE).scatter_(1, encoded.top_indices, encoded.top_acts)


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_theirs_is_the_same_function_here_and_comes_back(activation: str, tmp_path: Path) -> None:
    coder, x = _trained(activation=activation), rows(D_IN)
    coder.save_to_disk(tmp_path / "layers.3.mlp")
    sae = load_foreign(tmp_path / "layers.3.mlp")
    assert_agrees(sae, x, _codes(coder, x), coder(x).sae_out)
    assert sae.provenance["hook"] == "layers.3.mlp"
    export_foreign(sae, tmp_path / "back", "sparsify")
    back = sparsify.SparseCoder.load_from_disk(tmp_path / "back")
    assert back.cfg == coder.cfg
    assert_agrees(sae, x, _codes(back, x), back(x).sae_out)
    assert_same(load_foreign(tmp_path / "back"), sae)


@pytest.mark.parametrize("rule", ["TopK", "GroupMax"])
@pytest.mark.parametrize("kind", ["variance", "none"])
@pytest.mark.parametrize("fold", [False, True], ids=["subtracting", "folded"])
def test_ours_is_the_same_function_there(rule: str, kind: str, fold: bool, tmp_path: Path) -> None:
    sae, x = ours(rule, kind, d_in=D_IN, d_sae=D_SAE), rows(D_IN)
    export_foreign(sae, tmp_path / "sae", "sparsify", fold=fold)
    coder = sparsify.SparseCoder.load_from_disk(tmp_path / "sae")
    assert_agrees(sae, x, _codes(coder, x), coder(x).sae_out)


@pytest.mark.parametrize(
    "kind",
    [
        {"transcode": True},
        {"transcode": True, "skip_connection": True},
        {"skip_connection": True},
    ],
    ids=["transcode", "transcode-skip", "skip"],
)
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_their_transcoder_is_the_same_function_here_and_comes_back(
    activation: str, kind: dict[str, bool], tmp_path: Path
) -> None:
    coder, x = _trained(activation=activation, **kind), rows(D_IN)
    coder.save_to_disk(tmp_path / "layers.3.mlp")
    made = load_foreign(tmp_path / "layers.3.mlp")
    assert isinstance(made, Transcoder)
    assert_agrees(made, x, _codes(coder, x), coder(x).sae_out)
    export_foreign(made, tmp_path / "back", "sparsify")
    back = sparsify.SparseCoder.load_from_disk(tmp_path / "back")
    assert back.cfg == coder.cfg
    for name, tensor in coder.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    assert_same(load_foreign(tmp_path / "back"), made)


@pytest.mark.parametrize("rule", ["TopK", "GroupMax"])
@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize("fold", [False, True], ids=["", "folded"])
def test_our_transcoder_is_the_same_function_there(
    rule: str, skip: bool, fold: bool, tmp_path: Path
) -> None:
    made, x = our_transcoder(rule, skip=skip, d_in=D_IN, d_sae=D_SAE), rows(D_IN)
    export_foreign(made, tmp_path / "made", "sparsify", fold=fold)
    coder = sparsify.SparseCoder.load_from_disk(tmp_path / "made")
    assert coder.cfg.transcode and coder.cfg.skip_connection == skip
    assert_agrees(made, x, _codes(coder, x), coder(x).sae_out)


def test_a_skip_that_subtracts_b_dec_is_folded_into_one_that_does_not(tmp_path: Path) -> None:
    coder, x = _trained(skip_connection=True), rows(D_IN)
    coder.save_to_disk(tmp_path / "theirs")
    made = load_foreign(tmp_path / "theirs")
    assert torch.equal(made.b_in, coder.b_dec)
    export_foreign(made, tmp_path / "folded", "sparsify", fold=True)
    folded = sparsify.SparseCoder.load_from_disk(tmp_path / "folded")
    assert folded.cfg.transcode and folded.cfg.skip_connection
    assert_agrees(made, x, _codes(folded, x), folded(x).sae_out)


def test_a_skip_of_half_precision_is_widened_where_b_dec_is_added_to(tmp_path: Path) -> None:
    coder, x = _trained(skip_connection=True).bfloat16(), rows(D_IN)
    coder.save_to_disk(tmp_path / "theirs")
    made = load_foreign(tmp_path / "theirs")
    assert made.W_enc.dtype == torch.float32
    coder.float()
    assert_agrees(made, x, _codes(coder, x), coder(x).sae_out)


def test_a_skip_that_went_on_learning_is_still_the_same_function_there(tmp_path: Path) -> None:
    """Then b_in and b_dec are no longer made of one b_dec, which sparsify has alone."""
    coder, x = _trained(skip_connection=True), rows(D_IN)
    coder.save_to_disk(tmp_path / "theirs")
    made = load_foreign(tmp_path / "theirs")
    made.b_dec.data[3] += 1
    export_foreign(made, tmp_path / "back", "sparsify")
    back = sparsify.SparseCoder.load_from_disk(tmp_path / "back")
    assert back.cfg.transcode
    assert_agrees(made, x, _codes(back, x), back(x).sae_out)
