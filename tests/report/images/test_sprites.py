"""Sheets of thumbnails: each image where it is said to be, and all within the budget."""

import io

import numpy as np
import pytest
from PIL import Image

from lightsae.report.images.sprites import Sprites, make_sprites


def flat(count: int, side: int = 20, colours: int = 3) -> dict[int, np.ndarray]:
    generator = np.random.default_rng(0)
    shape = (side, side, 3) if colours == 3 else (side, side)
    size = (3,) if colours == 3 else ()
    return {i * 3: np.broadcast_to(generator.integers(0, 256, size, np.uint8), shape).copy()
            for i in range(count)}  # fmt: skip


def cut(sprites: Sprites, place: int) -> np.ndarray:
    """A thumbnail as the page cuts it out."""
    per_sheet = sprites.columns * sprites.rows
    sheet = Image.open(io.BytesIO(sprites.sheets[place // per_sheet])).convert("RGB")
    row, column = divmod(place % per_sheet, sprites.columns)
    left, top = column * sprites.side, row * sprites.side
    return np.asarray(sheet.crop((left, top, left + sprites.side, top + sprites.side)))


@pytest.mark.parametrize("colours", [1, 3], ids=["grey", "colour"])
def test_each_image_is_at_its_place(colours):
    images = flat(2700, colours=colours)
    sprites = make_sprites(list(images), images.get, budget=10_000_000)
    assert sprites.side == 20
    assert len(sprites.sheets) == 2
    for place in (0, 1, 50, 51, 2600, 2601, 2699):
        middle = cut(sprites, place)[10, 10].astype(int)
        expected = np.broadcast_to(images[place * 3][10, 10], 3)
        assert np.abs(middle - expected).max() <= 2, place


def test_large_images_are_made_small_and_wide_ones_keep_their_shape():
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:] = (200, 30, 30)
    sprites = make_sprites([0], {0: wide}.get, budget=1_000_000)
    assert sprites.side == 112
    found = cut(sprites, 0)
    assert found[56, 56][0] > 180
    assert abs(int(found[5, 56][0]) - 127) < 12


def test_an_image_that_cannot_be_read_is_named_and_leaves_its_place():
    images = flat(3)
    del images[3]
    sprites = make_sprites([0, 3, 6], images.get, budget=1_000_000)
    assert sprites.missing == [1]
    assert np.abs(cut(sprites, 2)[10, 10].astype(int) - images[6][10, 10]).max() <= 2


@pytest.mark.parametrize("budget", [3_000_000, 600_000, 150_000])
def test_the_worst_of_images_stay_within_the_budget(budget):
    generator = np.random.default_rng(1)
    noise = generator.integers(0, 256, (600, 96, 96, 3), np.uint8)
    sprites = make_sprites(range(600), lambda key: noise[key], budget)
    assert sprites.size <= budget
    larger = make_sprites(range(600), lambda key: noise[key], budget * 4)
    assert larger.side >= sprites.side


def test_no_budget_gives_the_smallest_thumbnails():
    images = flat(30, side=64)
    assert make_sprites(list(images), images.get, budget=0).side == 16
