"""Images stored as one array in an HDF5, NPZ or NPY file."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lightsae.activations.extraction.image_sources.array_files import array_names, open_array
from lightsae.activations.extraction.image_sources.file_listing import stamp, stamps
from lightsae.activations.extraction.image_sources.labels import check_range
from lightsae.activations.extraction.models import closest
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require

_CHANNELS = (1, 3)


class ArrayFile:
    """Images uint8 `[N, H, W, C]` or `[N, C, H, W]` with 1 or 3 channels, and integer labels `[N]`.

    HDF5, NPY and uncompressed NPZ files are not read into memory.

    Args:
        path: The file. A .npy file holds the images alone.
        image: Name of the array of images, `images` by default.
        label: Name of the array of labels, `labels` by default, if there. For a .npy file: of
            another .npy file beside it.
        labels: Whether to look for labels and classes.

    Attributes:
        classes: The strings of the array `classes`, if there.
        fingerprint: Of the file's name, size and time.

    Raises:
        LightsaeError: If the file or an array (the closest are offered) is missing, or has another
            shape or dtype. Pickled objects are refused.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/digits.npz"
        >>> np.savez(path, images=np.zeros((5, 8, 8, 1), np.uint8), labels=np.arange(5))
        >>> image, label = ArrayFile(path)[3]
        >>> image.size, int(label)
        ((8, 8), 3)
    """

    def __init__(
        self,
        path: str,
        image: str | None = None,
        label: str | None = None,
        *,
        labels: bool = True,
    ) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise LightsaeError(f"data.arrays: there is no file {path}")
        names = self._names()
        self._image = self._named(image, "images", "image_key", names)
        self._label = None
        if labels and (label is not None or "labels" in names):
            self._label = self._named(label, "labels", "label_key", names)
        images = self._array(self._image)
        self._channels_last = _channels_last(images, f"{path}: {self._image}")
        self._count = len(images)
        self._check_labels()
        self.classes = self._classes() if labels and "classes" in names else []
        if self._label is not None and self.classes:
            check_range(f"{path}: {self._label}", self._array(self._label), len(self.classes))
        files = [Path(self._path.name)]
        if self._label is not None and self._path.suffix.lower() == ".npy":
            files.append(Path(self._label))
        listed = stamps(self._path.parent, files)
        self.fingerprint = f"{listed} {self._image} {self._label}"

    def _names(self) -> list[str]:
        """The arrays of the file."""
        try:
            return array_names(self._path)
        except (OSError, zipfile.BadZipFile) as error:
            raise LightsaeError(f"{self._path}: cannot be read: {reason(error)}") from error
        except ValueError as error:
            raise LightsaeError(f"data.arrays: {error}") from None

    def _named(self, name: str | None, default: str, option: str, names: list[str]) -> str:
        """The array asked for, or the usual one."""
        if name is None and option == "image_key" and self._path.name in names:
            return self._path.name
        asked = name or default
        if asked not in names:
            raise LightsaeError(
                f"data.{option}: {self._path} has no array {asked!r}{closest(asked, names)} "
                f"(it has {', '.join(names)})"
            )
        return asked

    def _array(self, name: str) -> Any:
        """An array of the file; the numbers stay on disk where they can."""
        try:
            return open_array(self._path, name, stamp(self._path))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise LightsaeError(f"{self._path}: {name} cannot be read: {reason(error)}") from error

    def _check_labels(self) -> None:
        """There is one integer for each image."""
        if self._label is None:
            return
        labels = self._array(self._label)
        if labels.shape != (self._count,) or labels.dtype.kind not in "iu":
            raise LightsaeError(
                f"{self._path}: {self._label} is {labels.dtype} {list(labels.shape)}, "
                f"expected integers [{self._count}], one per image"
            )

    def _classes(self) -> list[str]:
        """Names of the labels."""
        names = self._array("classes")
        if names.dtype.kind != "U":
            raise LightsaeError(f"{self._path}: classes is {names.dtype}, expected strings")
        return [str(name) for name in names]

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def __getitem__(self, position: int) -> Any:
        """The image, with its label where there are labels."""
        pixels = np.asarray(self._array(self._image)[position])
        if not self._channels_last:
            pixels = pixels.transpose(1, 2, 0)
        if pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        make = require("PIL.Image", extra="vision").fromarray
        image = make(np.ascontiguousarray(pixels))
        return image if self._label is None else (image, self._array(self._label)[position])


def _channels_last(images: Any, where: str) -> bool:
    """Whether images are `[N, H, W, C]`."""
    shape = images.shape
    if images.dtype == np.uint8 and len(shape) == 4:
        if shape[3] in _CHANNELS:
            return True
        if shape[1] in _CHANNELS:
            return False
    raise LightsaeError(
        f"{where} is {images.dtype} {list(shape)}, "
        "expected uint8 [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
    )
