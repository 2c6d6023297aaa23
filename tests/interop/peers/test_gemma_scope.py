"""SAELens reads the files of Gemma Scope 2 as we do, and ours."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lightsae.interop import export_foreign, load_foreign
from lightsae.sae import Transcoder

from ..helpers import assert_agrees, rows
from ..libraries.gemma_scope import GemmaScope
from ..ours import our_transcoder
from .helpers import peer

loaders = peer("sae_lens.loading.pretrained_sae_loaders")
registry = peer("sae_lens.registry")
D_IN, FOLDER = 24, "transcoder_all/layer_17_width_96_l0_small"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that SAELens takes for the repository to download from."""

    def download(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        return str(tmp_path / repo_id / subfolder / filename)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        tensors = loaders.load_safetensors_weights(tmp_path / repo_id / filename)
        return {name: list(tensor.shape) for name, tensor in tensors.items()}

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path


def _in_saelens(hub: Path, folder: Path) -> Any:
    """What SAELens makes of a folder of Gemma Scope 2."""
    shutil.copytree(folder, hub / "gemma-scope-2-4b-it" / FOLDER)
    config, tensors, _ = loaders.gemma_3_sae_huggingface_loader("gemma-scope-2-4b-it", FOLDER)
    sae_class, config_class = registry.get_sae_class(config["architecture"])
    sae = sae_class(config_class.from_dict(config))
    sae.load_state_dict(tensors)
    return sae


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_a_transcoder_is_the_same_function_in_saelens(hub: Path, affine: bool) -> None:
    folder, x = GemmaScope("transcoder", affine=affine).save_2(hub / "files"), rows(D_IN)
    made, theirs = load_foreign(folder), _in_saelens(hub, folder)
    assert isinstance(made, Transcoder)
    assert_agrees(made, x, theirs.encode(x), theirs(x))


@pytest.mark.parametrize("rule", ["BatchTopK", "JumpReLU"])
@pytest.mark.parametrize("d_out", [24, 10])
@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
def test_our_transcoder_is_the_same_function_in_saelens(
    hub: Path, rule: str, d_out: int, skip: bool
) -> None:
    made, x = our_transcoder(rule, skip=skip, d_in=D_IN, d_out=d_out, d_sae=96), rows(D_IN)
    made.provenance = {"model": "google/gemma-3-4b-it"}
    export_foreign(made, hub / "files", "gemma_scope")
    theirs = _in_saelens(hub, hub / "files")
    assert_agrees(made, x, theirs.encode(x), theirs(x))
