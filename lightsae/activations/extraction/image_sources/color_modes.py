"""Conversion of PIL images to the mode a model takes (CMYK, palette, 16-bit grey to RGB or L)."""

from typing import Any

import numpy as np

from lightsae.extras import require

# PIL opens grey images of 16 bits from these files in a mode of 32 bits.
_SIXTEEN_BIT_FILES = ("PNG", "PPM")
# Tags of TIFF that PIL does not apply to grey images of 9 to 16 bits.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def converted(image: Any, mode: str) -> Any:
    """A PIL image in RGB or L: alpha is dropped, 12 and 16 bits are scaled to 8.

    Args:
        image: In any mode of PIL but those of integers and floats of 32 bits.
        mode: RGB or L.

    Raises:
        ValueError: If nothing says which of its values is black and which white.

    Example:
        >>> from PIL import Image
        >>> converted(Image.new("I;16", (1, 1), 65535), "RGB").getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT_FILES):
        image = _eight_bits(image)
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its mode is {image.mode}, numbers of 32 bits without a known range; expected 8 or "
            "16 bits per channel"
        )
    return image.convert(mode)


def _eight_bits(image: Any) -> Any:
    """A grey image of at most 16 bits as one of 0 to 255, rounded."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    most = (1 << tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    values = np.minimum(np.asarray(image).astype(np.uint32), most)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = most - values
    scaled = ((values * 255 + most // 2) // most).astype(np.uint8)
    return require("PIL.Image", extra="vision").fromarray(scaled)
