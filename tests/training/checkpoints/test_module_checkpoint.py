"""Checkpoints of a module: which it takes, compiled or not, and which it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.sae import AuxK, TopK
from lightsae.training import SAEModule

from ..helpers import D_IN, K, make_data, make_module, make_trainer


def test_a_checkpoint_loads_by_itself_with_the_same_selection(shards: Path, tmp_path: Path) -> None:
    module = make_module(aux_k=AuxK(dead_after=16))
    make_trainer(tmp_path).fit(module, make_data(shards))
    path = tmp_path / "last.ckpt"
    loaded = SAEModule.load_from_checkpoint(path, selection=TopK(K), weights_only=True)
    x = torch.randn(5, D_IN)
    assert torch.equal(loaded.sae(x), module.sae(x))
    counters = loaded.dead_latents.tokens_since_fired
    assert counters.any()
    assert torch.equal(counters, module.dead_latents.tokens_since_fired)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": TopK(4)}, r"trained with selection \{'rule': 'TopK', 'k': 3\}.*'k': 4"),
        ({"selection": TopK(K), "d_in": 7}, r"sae.W_enc is \[24, 6\], expected \[24, 7\]"),
        ({"selection": TopK(K), "d_sae": 8}, r"sae.W_enc is \[24, 6\], expected \[8, 6\]"),
    ],
    ids=["k", "d_in", "d_sae"],
)
def test_a_checkpoint_of_another_model_is_refused(
    options: dict[str, Any], message: str, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(make_module(), make_data(shards))
    with pytest.raises(LightsaeError, match=message):
        SAEModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True, **options)


@pytest.mark.parametrize("compiled", ["saved", "loaded"])
def test_a_checkpoint_fits_whether_its_autoencoder_was_compiled_or_not(compiled: str) -> None:
    saved, loaded = make_module(d_in=D_IN), make_module(d_in=D_IN)
    module = saved if compiled == "saved" else loaded
    module.sae = torch.compile(module.sae, backend="eager")  # type: ignore[assignment]
    checkpoint: dict[str, Any] = {"state_dict": saved.state_dict()}
    saved.on_save_checkpoint(checkpoint)
    assert "sae.W_enc" in checkpoint["state_dict"]
    loaded.on_load_checkpoint(checkpoint)
    loaded.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(loaded.sae.W_enc, saved.sae.W_enc)


def test_a_checkpoint_that_was_written_with_the_prefix_of_a_compiled_one_is_read() -> None:
    saved, loaded = make_module(d_in=D_IN), make_module(d_in=D_IN)
    saved.sae = torch.compile(saved.sae, backend="eager")  # type: ignore[assignment]
    checkpoint: dict[str, Any] = {"state_dict": saved.state_dict()}
    loaded.on_load_checkpoint(checkpoint)
    loaded.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(loaded.sae.W_enc, saved.sae.W_enc)
