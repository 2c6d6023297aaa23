"""Images of samples: where they come from, what the model saw of them, what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightsae.activations import DataOptions, Manifest
from lightsae.activations.extraction.image_origin import origin_settings
from lightsae.activations.extraction.images.image_set import open_images
from lightsae.activations.shards.manifest import IMAGES_FROM
from lightsae.activations.sources.digits import Digits
from lightsae.errors import LightsaeError
from lightsae.report.images.sample_images import (
    ModelView,
    as_pixels,
    images_at,
    images_of_shards,
)
from lightsae.report.latents.image_keys import image_keys


def manifest(options: DataOptions, count: int, **settings) -> Manifest:
    data = open_images(options, lambda image: image, "RGB").fingerprint
    known = {"images": count, "data": data, **origin_settings(options), **settings}
    return Manifest(d_in=4, dtype="float16", settings=known)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for shade in (0, 100):
            Image.new("RGB", (40, 30), (shade, number * 200, 0)).save(
                tmp_path / name / f"{shade}.png"
            )
    return tmp_path


def key(sample: int, copy: int = 0) -> int:
    return int(image_keys(np.array([sample]), np.array([copy]))[0])


def test_images_come_from_where_the_shards_were_made_of_them(folder):
    images = images_of_shards(manifest(DataOptions(folder=str(folder)), 4), 32)
    assert images.pixels(key(1)).shape == (24, 32, 3)
    assert images.pixels(key(1))[5, 5].tolist() == [100, 0, 0]
    assert images.pixels(key(2))[5, 5].tolist() == [0, 200, 0]
    assert images.pixels(key(9)) is None
    assert images[9].tolist() == np.full((16, 16), 127).tolist()


def test_images_that_changed_are_not_shown(folder):
    found = manifest(DataOptions(folder=str(folder)), 4)
    Image.new("RGB", (8, 8)).save(folder / "a" / "new.png")
    with pytest.raises(LightsaeError, match="images changed since the shards"):
        images_of_shards(found, 32)


def test_images_that_are_gone_are_told(folder):
    found = manifest(DataOptions(folder=str(folder)), 4)
    found.settings[IMAGES_FROM] = {"folder": str(folder / "moved")}
    with pytest.raises(LightsaeError, match="there is no folder"):
        images_of_shards(found, 32)


def test_a_class_that_a_file_names_is_not_imported():
    settings = {IMAGES_FROM: {"dataset": "antigravity.Dataset"}}
    with pytest.raises(LightsaeError, match="not imported because a file says so"):
        images_of_shards(Manifest(d_in=4, dtype="float16", settings=settings), 32)


def test_a_given_path_must_have_as_many_images(folder):
    found = manifest(DataOptions(folder=str(folder)), 5)
    with pytest.raises(LightsaeError, match="has 4 images, the shards were made of 5"):
        images_at(str(folder), found, 32)
    assert images_at(str(folder), None, 32).pixels(key(0)) is not None


def test_a_path_that_is_none_is_refused(tmp_path):
    with pytest.raises(LightsaeError, match=r"--images .*notes.txt: expected a folder of images"):
        images_at(str(tmp_path / "notes.txt"), None, 32)


def test_arrays_and_dataset_classes_by_path(tmp_path):
    pixels = np.zeros((3, 6, 6, 3), np.uint8)
    pixels[2] = 250
    np.savez(tmp_path / "images.npz", images=pixels)
    found = images_at(str(tmp_path / "images.npz"), None, 32)
    assert found.pixels(key(2)).max() == 250
    digits = images_at("lightsae.activations.sources.digits.Digits", None, 32)
    assert digits.pixels(key(5)).shape == (16, 16)


def test_copies_of_a_sample_are_images_of_their_own():
    settings = {IMAGES_FROM: {"dataset": "lightsae.activations.sources.digits.Digits",
                              "arguments": {"copies": 3}}}  # fmt: skip
    images = images_of_shards(Manifest(d_in=4, dtype="float16", settings=settings), 32)
    every = Digits(copies=3).images
    for copy in range(3):
        expected = as_pixels(every[7 + copy * 1797])
        np.testing.assert_array_equal(images.pixels(key(7, copy)), expected)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({}, (16, 32)),
        ({"input_size": [3, 64, 64]}, (32, 32)),
        ({"input_size": [3, 64, 64], "crop_pct": 0.5}, (32, 32)),
        ({"input_size": [3, 64, 64], "crop_mode": "squash"}, (32, 32)),
        ({"input_size": [3, 64, 64], "crop_mode": "border"}, (16, 32)),
        ({"input_size": [3, 32, 64]}, (16, 32)),
    ],
)
def test_the_model_saw_this_part(said, size):
    image = Image.new("RGB", (200, 100))
    image.paste((255, 0, 0), (90, 40, 110, 60))
    found = ModelView(said, 32)(image)
    assert found.dtype == torch.uint8
    assert tuple(found.shape) == (3, *size)
    height, width = size
    assert found[0, height // 2, width // 2] > 200


def test_more_colours_than_three_are_refused():
    with pytest.raises(LightsaeError, match=r"shape \[5, 4, 4\], expected 1 or 3 colours"):
        as_pixels(torch.zeros(5, 4, 4))


def test_a_constant_float_image_is_black():
    assert as_pixels(torch.full((1, 2, 2), 0.3)).max() == 0
