import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightsae.activations.extraction.image_sources.color_modes import converted
from tests.activations.tiffs import grey_tiff

RAMP = np.arange(0, 65_000, 65, dtype=np.uint16).reshape(20, 50)
SCALED = np.round(RAMP / 257).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.pgm"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path: Path, name: str, mode: str) -> None:
    Image.fromarray(RAMP).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        found = np.asarray(converted(image, mode))
    assert np.array_equal(found.reshape(20, 50, -1)[..., -1], SCALED)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_tiff_of_12_bits_is_scaled_by_its_bits(mode: str) -> None:
    packed = b"\x00\x08\x00\xff\xff\xff"  # 0, 2048, 4095, 4095
    with Image.open(io.BytesIO(grey_tiff(12, 1, packed, 4))) as image:
        assert image.mode == "I;16"
        found = np.asarray(converted(image, mode)).reshape(4, -1)[:, -1]
    assert found.tolist() == [0, 128, 255, 255]


def test_white_is_zero_where_a_tiff_of_16_bits_says_so() -> None:
    pixels = struct.pack("<3H", 0, 257 * 100, 65_535)
    with Image.open(io.BytesIO(grey_tiff(16, 0, pixels, 3))) as image:
        assert np.asarray(converted(image, "L")).tolist() == [[255, 155, 0]]


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_every_order_of_the_two_bytes_is_known(mode: str) -> None:
    image = Image.new(mode, (2, 2), 25_700)
    assert converted(image, "L").getpixel((1, 1)) == 100


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_range_are_told_by_their_mode(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4), 1).save(tmp_path / "a.tif")
    says = f"its mode is {mode}, numbers of 32 bits without .*; expected 8 or 16 bits per channel"
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(ValueError, match=says):
        converted(image, "RGB")


def test_alpha_is_dropped_and_a_palette_looked_up() -> None:
    clear = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert converted(clear, "RGB").getpixel((0, 0)) == (10, 20, 30)
    painted = Image.new("P", (1, 1), 1)
    painted.putpalette([0, 0, 0, 40, 50, 60])
    assert converted(painted, "RGB").getpixel((0, 0)) == (40, 50, 60)
    assert converted(Image.new("L", (1, 1), 7), "RGB").getpixel((0, 0)) == (7, 7, 7)


def test_an_image_stays_as_it_is_stored_whatever_exif_says_of_its_orientation(
    tmp_path: Path,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert converted(image, "RGB").size == (4, 2)
