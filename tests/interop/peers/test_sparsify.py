"""sparsify writes and we read, we write and sparsify reads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop import export_foreign, load_foreign

from ..helpers import assert_agrees, assert_same, rows
from ..ours import ours
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
        coder(rows(D_IN, 256)).fvu.backward()
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


@pytest.mark.parametrize("setting", ["transcode", "skip_connection"])
def test_what_is_no_autoencoder_is_refused(setting: str, tmp_path: Path) -> None:
    config = sparsify.SparseCoderConfig(num_latents=D_SAE, k=K, **{setting: True})
    sparsify.SparseCoder(D_IN, config).save_to_disk(tmp_path)
    with pytest.raises(LightsaeError, match=f"cfg.json: {setting} is set: only autoencoders"):
        load_foreign(tmp_path)
