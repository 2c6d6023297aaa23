"""Sheets of thumbnails as WebP or JPEG: few files instead of thousands, within so many bytes."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.extras import require

_SHEET_PIXELS = 1024
_SIDES = (112, 96, 80, 64, 56, 48, 40, 32, 24, 16)
_QUALITIES = (80, 60, 40)
# Flat pictures this small cost least without loss, and blur most with it.
_LOSSLESS_SIDE = 32
_MEASURED = 192
_MARGIN = 0.95

Pixels = Callable[[int], Array | None]


@dataclass(frozen=True)
class Encoding:
    """How thumbnails are stored.

    Attributes:
        side: Pixels of a square thumbnail.
        quality: Of WebP or JPEG; 100 is without loss.
    """

    side: int
    quality: int


@dataclass(frozen=True)
class Sprites:
    """Thumbnails in sheets, in the order asked for.

    Attributes:
        sheets: The files, one after another.
        mime: Their kind, such as image/webp.
        columns: Thumbnails in a row of a sheet.
        rows: Rows of a sheet; the last may be less full.
        side: Pixels of a thumbnail.
        missing: Places of images that could not be read.
    """

    sheets: list[bytes]
    mime: str
    columns: int
    rows: int
    side: int
    missing: list[int]

    @property
    def size(self) -> int:
        """Bytes of all sheets."""
        return sum(map(len, self.sheets))


def make_sprites(
    keys: Sequence[int],
    pixels: Pixels,
    budget: int,
    tick: Callable[[int], object] = lambda _: None,
) -> Sprites:
    """Pack some images, as large as fits.

    Args:
        keys: Numbers of the images.
        pixels: Gives an image by its number, uint8 `[H, W]` or `[H, W, 3]`, or None.
        budget: Bytes that all sheets may take.
        tick: Told of each number of images that is done.

    Returns:
        The sheets: of the largest thumbnails that fit, or of the smallest ones.
    """
    drawn = np.random.default_rng(0).permutation(len(keys))[:_MEASURED]
    few = [pixels(keys[place]) for place in drawn.tolist()]
    found = [each for each in few if each is not None]
    native = max((max(each.shape[:2]) for each in found), default=1)
    encodings = list(_encodings(native))
    for place, encoding in enumerate(encodings):
        last = place == len(encodings) - 1
        expected = _bytes_of(found, encoding) * len(keys) / max(len(found), 1)
        if expected > budget * _MARGIN and not last:
            continue
        sprites = _packed(keys, pixels, encoding, tick)
        if sprites.size <= budget or last:
            return sprites
    raise AssertionError("there is an encoding")


def _encodings(native: int) -> Iterator[Encoding]:
    """Ways to store thumbnails, the best first; none is larger than the images are."""
    sides = [side for side in _SIDES if side < native]
    if native <= _SIDES[0]:
        sides.insert(0, native)
    for side in sides:
        if side <= _LOSSLESS_SIDE:
            yield Encoding(side, 100)
        yield from (Encoding(side, quality) for quality in _QUALITIES)


def _bytes_of(images: Sequence[Array], encoding: Encoding) -> int:
    """Bytes that some images take."""
    columns = _columns(encoding.side)
    return sum(
        len(_encoded(_sheet(images[begin : begin + columns**2], encoding.side), encoding.quality))
        for begin in range(0, len(images), columns**2)
    )


def _columns(side: int) -> int:
    return max(1, _SHEET_PIXELS // side)


def _packed(
    keys: Sequence[int], pixels: Pixels, encoding: Encoding, tick: Callable[[int], object]
) -> Sprites:
    """All sheets, images read by a few threads."""
    columns = _columns(encoding.side)
    sheets, missing = [], []
    with ThreadPoolExecutor(4) as pool:
        for begin in range(0, len(keys), columns**2):
            part = keys[begin : begin + columns**2]
            images = list(pool.map(pixels, part))
            missing += [begin + place for place, each in enumerate(images) if each is None]
            sheets.append(_encoded(_sheet(images, encoding.side), encoding.quality))
            tick(len(part))
    return Sprites(sheets, f"image/{_format()}", columns, columns, encoding.side, missing)


def _sheet(images: Sequence[Array | None], side: int) -> Array:
    """Images beside and below each other, each fitted into its square, grey where there is none."""
    columns = _columns(side)
    rows = -(-len(images) // columns)
    colours = 3 if any(each is not None and each.ndim == 3 for each in images) else 1
    sheet: Array = np.full((rows * side, columns * side, colours), 127, np.uint8)
    for place, image in enumerate(images):
        if image is not None:
            fitted = _fitted(image, side)
            top, left = place // columns * side, place % columns * side
            height, width = fitted.shape[:2]
            top, left = top + (side - height) // 2, left + (side - width) // 2
            sheet[top : top + height, left : left + width] = fitted
    return sheet[:, :, 0] if colours == 1 else sheet


def _fitted(image: Array, side: int) -> Array:
    """An image whose longer side is that of a thumbnail, [H, W, C]."""
    height, width = image.shape[:2]
    if max(height, width) != side:
        pillow = require("PIL.Image", extra="vision")
        share = side / max(height, width)
        size = max(1, round(width * share)), max(1, round(height * share))
        kind = pillow.Resampling.NEAREST if share > 1 else pillow.Resampling.LANCZOS
        image = np.asarray(pillow.fromarray(image).resize(size, kind))
    return image[..., None] if image.ndim == 2 else image


def _format() -> str:
    """WebP where Pillow has it."""
    return "webp" if require("PIL.features", extra="vision").check("webp") else "jpeg"


def _encoded(sheet: Array, quality: int) -> bytes:
    """A sheet as a file."""
    file = io.BytesIO()
    image = require("PIL.Image", extra="vision").fromarray(sheet)
    kind = _format()
    options = {"lossless": True} if kind == "webp" and quality == 100 else {"quality": quality}
    image.save(file, kind.upper(), **options)
    return file.getvalue()
