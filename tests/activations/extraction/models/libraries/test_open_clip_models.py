from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightsae.activations.extraction.images.preparation import DataOptions, Transform, preparation
from lightsae.activations.extraction.models import LayerTap, ModelOptions, load_model
from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.errors import LightsaeError

open_clip = pytest.importorskip("open_clip")

SMALL = {
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    "embed_dim": 16,
}


def _options(name: str = "ViT-B-32", **options: Any) -> ModelOptions:
    arguments = SMALL | options.pop("arguments", {})
    return ModelOptions(name=name, library="open_clip", arguments=arguments, **options)


def test_the_images_part_is_taken_and_says_its_class_token() -> None:
    module = load_model(_options(pretrained=False))
    output = LayerTap(module, "transformer.resblocks.1")(torch.rand(2, 3, 32, 32))
    assert output.shape == (2, 17, 32)
    assert select_tokens(output, "patch", module)[1].tolist() == list(range(1, 17))


def test_weights_from_a_file_are_those_of_the_whole_model(tmp_path: Path) -> None:
    source = open_clip.create_model("ViT-B-32", pretrained=None, **SMALL)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    module = load_model(_options(weights=str(tmp_path / "w.pt")))
    assert torch.equal(module.conv1.weight, source.visual.conv1.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_images_are_prepared_as_open_clip_does(mode: str, picture: Image.Image) -> None:
    options = _options(pretrained=False, arguments={"force_preprocess_cfg": {"resize_mode": mode}})
    settings = preparation(DataOptions(folder="photos"), load_model(options))
    model = open_clip.create_model("ViT-B-32", pretrained=None, **options.arguments)
    expected = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )(picture)
    torch.testing.assert_close(Transform(settings)(picture), expected)
    assert settings.get("crop_mode", "center") == {"shortest": "center"}.get(mode, mode)


def test_weights_of_a_name_must_be_chosen() -> None:
    says = r"model.arguments.pretrained: open_clip's ViT-B-32 wants one of .*laion2b_s34b_b79k"
    with pytest.raises(LightsaeError, match=says):
        load_model(_options())


@pytest.mark.parametrize(
    ("argument", "value", "option"),
    [
        ("pretrained", False, "pretrained"),
        ("pretrained", True, "pretrained"),
        ("load_weights", False, "pretrained"),
        ("model_name", "ViT-B-32", "name"),
    ],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_what_is_an_option_is_no_argument(
    argument: str, value: object, option: str, pretrained: bool
) -> None:
    says = f"^model.arguments.{argument} is {value!r}: give --model.{option} instead$"
    with pytest.raises(LightsaeError, match=says):
        load_model(_options(pretrained=pretrained, arguments={argument: value}))


def test_a_name_that_there_is_not_offers_the_closest() -> None:
    with pytest.raises(LightsaeError, match=r"open_clip has no 'ViT-B32'; closest: 'ViT-B-32'"):
        load_model(_options("ViT-B32", pretrained=False))


@pytest.mark.parametrize(("name", "hint"), [("ViT-B-32", True), ("hf-hub:timm/a", False)])
def test_weights_that_cannot_be_fetched_may_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to download file")

    monkeypatch.setattr("open_clip.create_model", fail)
    arguments = {"pretrained": "laion2b_s34b_b79k"}
    with pytest.raises(LightsaeError, match="RuntimeError: Failed to download file") as caught:
        load_model(_options(name, arguments=arguments))
    assert ("model.pretrained false need no download" in str(caught.value)) == hint
