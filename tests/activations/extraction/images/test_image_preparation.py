"""How images become tensors: as the model says, or as the options do."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightsae.activations import DataOptions
from lightsae.activations.extraction.images.image_set import (
    load_images,
)
from lightsae.errors import LightsaeError

from .pictures import OWN, STAND_INS, save_picture


def test_a_folder_needs_to_know_how_images_are_prepared(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    with pytest.raises(LightsaeError, match=r"data.size, data.mean and data.std are needed"):
        load_images(DataOptions(folder=str(tmp_path)), nn.Identity())
    images, settings = load_images(DataOptions(folder=str(tmp_path), **OWN), nn.Identity())
    assert images.load(0).image.shape == (3, 16, 16)  # type: ignore[union-attr]
    assert settings["std"] == [0.25] * 3


def test_a_timm_model_says_how_images_are_prepared(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    save_picture(tmp_path / "a.png")
    small = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}
    module = timm.create_model("vit_tiny_patch16_224", **small)
    module.pretrained_cfg = {**module.pretrained_cfg, "input_size": (3, 16, 16)}
    images, settings = load_images(DataOptions(folder=str(tmp_path), crop=1.0), module)
    assert settings["mean"] == [0.5] * 3
    assert settings["crop_pct"] == 1.0
    assert images.load(0).image.shape == (3, 16, 16)  # type: ignore[union-attr]


SMALL_VIT = {"img_size": 32, "depth": 1}


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("test_vit", SMALL_VIT, [32, 32]),
        ("test_vit", {**SMALL_VIT, "img_size": [32, 48]}, [32, 48]),
        ("test_vit", {**SMALL_VIT, "dynamic_img_size": False}, [32, 32]),
        ("test_vit", {"depth": 1}, [160, 160]),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "depths": [1], "num_heads": [2]},
            [64] * 2,
        ),
        ("test_resnet", {}, [160, 160]),
    ],
)
def test_images_have_the_size_that_a_timm_model_was_built_for(
    tmp_path: Path, name: str, arguments: dict[str, Any], size: list[int]
) -> None:
    timm = pytest.importorskip("timm")
    save_picture(tmp_path / "a.png")
    module = timm.create_model(name, **arguments)
    images, settings = load_images(DataOptions(folder=str(tmp_path)), module)
    assert settings["input_size"] == [3, *size]
    image = images.load(0).image
    assert isinstance(image, torch.Tensor)
    module(image[None])


def test_another_size_than_a_timm_model_was_built_for_is_refused(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    save_picture(tmp_path / "a.png")
    options = DataOptions(folder=str(tmp_path), size=48)
    module = timm.create_model("test_vit", **SMALL_VIT, dynamic_img_size=False)
    says = (
        "data.size is 48: VisionTransformer was built for images of 32 x 32 (img_size among its a"
    )
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}"):
        load_images(options, module)
    module = timm.create_model("test_vit", **SMALL_VIT)
    images, _ = load_images(options, module)
    module(images.load(0).image[None])  # type: ignore[index]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_a_timm_model_of_one_channel_gets_grey_images(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    save_picture(tmp_path / "a.png")
    module = timm.create_model(name, in_chans=1)
    images, settings = load_images(DataOptions(folder=str(tmp_path)), module)
    assert settings["input_size"] == [1, 160, 160]
    assert len(settings["mean"]) == len(settings["std"]) == 1
    image = images.load(0).image
    assert isinstance(image, torch.Tensor)
    assert image.shape == (1, 160, 160)
    module(image[None])


def test_a_model_of_four_channels_gets_tensors_only(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    save_picture(tmp_path / "a.png")
    module = timm.create_model("test_vit", in_chans=4)
    says = "^model: VisionTransformer takes images of 4 channels, expected 1 .grey. or 3 .RGB.; oth"
    with pytest.raises(LightsaeError, match=says):
        load_images(DataOptions(folder=str(tmp_path)), module)
    images, _ = load_images(DataOptions(dataset=f"{STAND_INS}.Noise"), module)
    assert images.load(0).image is not None


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"input_size": "32"}, "input_size is '32', expected a side in pixels, or [channels, heig"),
        ({"input_size": [32, 32]}, "input_size is [32, 32], expected a side in pixels, or [chann"),
        ({"input_size": 0}, "input_size is 0, expected a side in pixels, or [channels, height, w"),
        ({"mean": 0.5}, "mean is 0.5, expected a list of numbers, one per channel"),
        ({"std": [0.5, 0.0, 0.5]}, "std is [0.5, 0.0, 0.5], expected a list of numbers above 0, o"),
        (
            {"input_size": [3, 8, 8], "mean": [0.5, 0.5]},
            "mean has 2 numbers, expected 3, one per channel",
        ),
        ({"crop_pct": "all"}, "crop_pct is 'all', expected a number above 0"),
        (
            {"interpolation": "cubicc"},
            "interpolation is 'cubicc', expected one of nearest, bilinear, bicubic, box",
        ),
        ({"crop_mode": "middle"}, "crop_mode is 'middle', expected one of center, squash, border"),
    ],
)
def test_a_preparation_that_cannot_be_is_told_before_images_are_read(
    tmp_path: Path, said: dict[str, Any], says: str
) -> None:
    module = nn.Identity()
    module.preparation = said  # type: ignore[assignment]
    with pytest.raises(LightsaeError, match=f"^preparation of Identity: {re.escape(says)}"):
        load_images(DataOptions(folder=str(tmp_path)), module)


def test_a_preparation_may_say_the_side_alone(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    module = nn.Identity()
    module.preparation = {"input_size": 12}  # type: ignore[assignment]
    images, settings = load_images(DataOptions(folder=str(tmp_path)), module)
    assert settings["input_size"] == [3, 12, 12]
    assert images.load(0).image.shape == (3, 12, 12)  # type: ignore[union-attr]
    module.preparation = {"input_size": 12, "mean": [0.5], "std": [0.5]}  # type: ignore[assignment]
    images, _ = load_images(DataOptions(folder=str(tmp_path)), module)
    assert images.load(0).image.shape == (1, 12, 12)  # type: ignore[union-attr]


@pytest.mark.parametrize(("key", "values"), [("mean", [0.5]), ("std", [0.5] * 4), ("mean", [])])
def test_there_is_one_mean_and_std_per_channel(key: str, values: list[float]) -> None:
    module = nn.Identity()
    module.pretrained_cfg = {"input_size": (3, 16, 16)}  # type: ignore[assignment]
    message = f"data.{key} has {len(values)} numbers, expected 3, one per channel"
    with pytest.raises(LightsaeError, match=message):
        load_images(DataOptions(folder="somewhere", **{key: values}), module)
