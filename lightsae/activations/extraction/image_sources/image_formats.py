"""Which files are images: those that Pillow reads by itself; and opening them as nothing else."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import PurePath
from typing import Any

from lightsae.extras import require

# Earlier versions read these and no others.
EARLIER_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
# Read by another program, on some systems only, or no raster image at all.
_NO_IMAGES = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
_TOLD_ENDINGS = 6


@cache
def _pillow() -> Any:
    """Pillow with all its plugins, that of HEIC too where it is installed."""
    pillow = require("PIL.Image", extra="vision")
    pillow.init()
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return pillow


def image_endings() -> frozenset[str]:
    """Endings of the files that are images, in lower case, such as .jpg.

    Example:
        >>> sorted({".jpg", ".jfif", ".pdf", ".h5"} & image_endings())
        ['.jfif', '.jpg']
    """
    pillow = _pillow()
    # Those of MPO are opened as JPEG.
    formats = {*pillow.OPEN, "MPO"} - _NO_IMAGES
    return frozenset(ending for ending, kind in pillow.EXTENSION.items() if kind in formats)


def open_image(source: Any) -> Any:
    """Open an image, whatever its ending; formats that start another program are not tried.

    Args:
        source: A path or a file.

    Returns:
        A PIL image.

    Raises:
        OSError: If it is none of the formats, or cannot be read, as do the errors of Pillow's
            plugins.
    """
    pillow = _pillow()
    return pillow.open(source, formats=[kind for kind in pillow.ID if kind not in _NO_IMAGES])


def left_out(names: Iterable[str | PurePath]) -> str:
    """How many files are no images, by their endings.

    Example:
        >>> left_out(["a.txt", "b.txt"])
        '2 files are no images that Pillow reads and are left out: 2 .txt'
    """
    endings = [PurePath(name).suffix.lower() for name in names]
    files = "1 file is no image" if len(endings) == 1 else f"{len(endings)} files are no images"
    are = "is" if len(endings) == 1 else "are"
    return f"{files} that Pillow reads and {are} left out: {by_ending(endings)}"


def by_ending(endings: Iterable[str]) -> str:
    """The number of each ending, the most frequent first.

    Example:
        >>> by_ending([".txt", "", ".txt"])
        '2 .txt, 1 without ending'
    """
    counts = Counter(endings).most_common()
    told = [f"{count} {ending or 'without ending'}" for ending, count in counts[:_TOLD_ENDINGS]]
    others = sum(count for _, count in counts[_TOLD_ENDINGS:])
    return ", ".join([*told, f"{others} of other endings"] if others else told)
