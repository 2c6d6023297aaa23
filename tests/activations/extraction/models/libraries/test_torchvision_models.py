import pytest
import torch
from PIL import Image
from torchvision import models

from lightsae.activations.extraction.images.preparation import DataOptions, Transform, preparation
from lightsae.activations.extraction.models import (
    LayerOutputs,
    LayerTap,
    ModelOptions,
    load_model,
)
from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.errors import LightsaeError


def _options(name: str, **arguments: object) -> ModelOptions:
    return ModelOptions(
        name=name, library="torchvision", pretrained=False, arguments={"num_classes": 2} | arguments
    )


def test_a_vit_says_its_class_token() -> None:
    module = load_model(_options("vit_b_16", image_size=32))
    output = LayerTap(module, "encoder.layers.encoder_layer_0")(torch.zeros(1, 3, 32, 32))
    patches, positions = select_tokens(output, "patch", module)
    assert patches.shape == (1, 4, 768)
    assert positions.tolist() == [1, 2, 3, 4]


def test_a_swin_has_its_channels_last() -> None:
    module = load_model(_options("swin_t"))
    tap, images = LayerTap(module, "features.1.0"), torch.rand(1, 3, 32, 48)
    expected = tap(images)
    assert expected.shape == (1, 8, 12, 96)
    places, _ = select_tokens(LayerOutputs(tap)(images)[0], "patch", module)
    assert torch.equal(places[0, 13], expected[0, 1, 1])


def test_a_resnet_has_maps() -> None:
    module = load_model(_options("resnet18"))
    (output,) = LayerOutputs(LayerTap(module, "layer4"))(torch.rand(1, 3, 64, 64))
    assert select_tokens(output, "pooled", module)[0].shape == (1, 1, 512)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", models.ResNet18_Weights.DEFAULT), ("swin_t", models.Swin_T_Weights.DEFAULT)],
)
def test_images_are_prepared_as_torchvision_does(
    name: str, weights: models.WeightsEnum, picture: Image.Image
) -> None:
    settings = preparation(DataOptions(folder="photos"), load_model(_options(name)))
    expected = weights.transforms()(picture)
    torch.testing.assert_close(Transform(settings)(picture), expected)


def test_images_have_the_size_that_a_vit_was_built_for(picture: Image.Image) -> None:
    module = load_model(_options("vit_b_16", image_size=32))
    settings = preparation(DataOptions(folder="photos"), module)
    assert settings["input_size"] == [3, 32, 32]
    LayerTap(module, "encoder.layers.encoder_layer_0")(Transform(settings)(picture)[None])


def test_a_name_that_there_is_not_offers_the_closest() -> None:
    with pytest.raises(LightsaeError, match=r"torchvision has no 'vit_b16'; closest: 'vit_b_16'"):
        load_model(_options("vit_b16"))


def test_an_argument_that_there_is_not_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"model.name resnet18: cannot be built: .*nope"):
        load_model(_options("resnet18", nope=1))


@pytest.mark.parametrize(
    ("argument", "value", "option"),
    [("pretrained", False, "pretrained"), ("name", "resnet18", "name")],
)
def test_what_is_an_option_is_no_argument(argument: str, value: object, option: str) -> None:
    says = f"^model.arguments.{argument} is {value!r}: give --model.{option} instead$"
    with pytest.raises(LightsaeError, match=says):
        load_model(
            ModelOptions(name="resnet18", library="torchvision", arguments={argument: value})
        )


def test_weights_that_cannot_be_fetched_may_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model", fail)
    says = r"^model.name resnet18: cannot be built: OSError: no network; model.weights FILE and mo"
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(name="resnet18", library="torchvision"))
