import pytest
import torch

from lightsae.activations.extraction.images.preparation import DataOptions, preparation
from lightsae.activations.extraction.models import (
    LayerOutputs,
    LayerTap,
    ModelOptions,
    load_model,
)
from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.errors import LightsaeError


@pytest.mark.parametrize(
    ("name", "layer", "prefix"),
    [("test_vit", "blocks.0", 1), ("test_vit2", "blocks.0", 1), ("test_convnext", "stages.1", 0)],
)
def test_models_say_their_tokens(name: str, layer: str, prefix: int) -> None:
    module = load_model(ModelOptions(name=name, pretrained=False))
    (output,) = LayerOutputs(LayerTap(module, layer))(torch.zeros(1, 3, 160, 160))
    assert select_tokens(output, "patch", module)[1][0] == prefix


def test_a_model_that_squashes_its_images_says_so() -> None:
    squashed = load_model(ModelOptions(name="vit_tiny_patch16_224", pretrained=False))
    squashed.pretrained_cfg = {**squashed.pretrained_cfg, "crop_mode": "squash"}
    said = preparation(DataOptions(folder="photos"), squashed)
    assert said["crop_mode"] == "squash"
    assert said["crop_pct"] == 0.9


@pytest.mark.parametrize(
    ("argument", "value", "option"),
    [("pretrained", False, "pretrained"), ("model_name", "test_vit", "name")],
)
def test_what_is_an_option_is_no_argument(argument: str, value: object, option: str) -> None:
    says = f"^model.arguments.{argument} is {value!r}: give --model.{option} instead$"
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name="test_vit", arguments={argument: value}))


def test_weights_that_cannot_be_fetched_may_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", fail)
    says = r"^model.name test_vit: cannot be built: OSError: no network; model.weights FILE and mod"
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name="test_vit"))
