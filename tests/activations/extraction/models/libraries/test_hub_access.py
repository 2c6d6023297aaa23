"""A hub that cannot be reached is told at once; what is in the cache needs none."""

import socket
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save_file

from lightsae.activations.extraction.models import ModelOptions, load_model, weights_hash
from lightsae.activations.extraction.models.libraries.hub_access import hub_or_cache
from lightsae.errors import LightsaeError

NAME = "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A hub at a port where nobody listens, and an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return endpoint


@pytest.mark.timeout(20)  # the hub's client alone would try for longer
def test_the_error_comes_without_retries_and_names_the_hub(unreachable: str) -> None:
    says = (
        rf"^model.name {NAME}: is not in the cache, and {unreachable} cannot be reached "
        r"\(Connection refused\); model.weights FILE and model.pretrained false need no download$"
    )
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name=NAME))
    assert not constants.HF_HUB_OFFLINE


def test_a_model_of_the_cache_needs_no_hub(tmp_path: Path) -> None:
    model = timm.create_model(NAME, pretrained=False)
    folder = tmp_path / f"models--timm--{NAME}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    assert weights_hash(load_model(ModelOptions(name=NAME))) == weights_hash(model)


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions(name=NAME, pretrained=False),
        ModelOptions(name=NAME, weights="weights.safetensors"),
        ModelOptions(name="vit_b_16", library="torchvision"),
        ModelOptions(name="local-dir:models/a", library="open_clip"),
        ModelOptions(name=".", library="transformers"),
    ],
    ids=["untrained", "weights", "torchvision", "open_clip folder", "transformers folder"],
)
def test_what_needs_no_hub_does_not_look_for_it(options: ModelOptions) -> None:
    with hub_or_cache(options):
        assert not constants.HF_HUB_OFFLINE


def test_behind_a_proxy_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    with hub_or_cache(ModelOptions(name=NAME)):
        assert not constants.HF_HUB_OFFLINE


def test_another_error_is_left_as_it_is() -> None:
    with (
        pytest.raises(LightsaeError, match="cannot be built"),
        hub_or_cache(ModelOptions(name=NAME)),
    ):
        raise LightsaeError("cannot be built")
