"""Images by sample, from where the shards say they came from or from a path."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightsae.activations import DataOptions, ImageSet, Manifest
from lightsae.activations.extraction.image_origin import images_from
from lightsae.activations.extraction.images.image_set import open_images
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import IMAGES_FROM
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.report.latents.image_keys import copy_of, image_keys, sample_of

_ARRAYS = {".npz", ".npy", ".h5", ".hdf5", ".hdf"}


class ModelView:
    """What a model saw of a PIL image: its short side resized, the centre cut out, made small.

    Args:
        preparation: That of the shards' manifest, or empty.
        side: Pixels that the longer side has at most.
    """

    def __init__(self, preparation: Mapping[str, Any], side: int) -> None:
        self._crop = float(preparation.get("crop_pct") or 1)
        size = preparation.get("input_size")
        self._aspect = size[2] / size[1] if isinstance(size, list) and len(size) == 3 else 1.0
        self._mode = preparation.get("crop_mode", "center")
        self._known, self._side = bool(preparation), side

    def __call__(self, image: Any) -> Any:
        """The view as a tensor uint8 `[C, H, W]`."""
        torch = require("torch", extra="report")
        pixels = np.array(self._small(self._cut(image)))
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _cut(self, image: Any) -> Any:
        """The part that the model saw."""
        width, height = image.size
        if not self._known or self._mode == "border":
            return image
        if self._mode == "squash":
            side = max(1, min(width, height))
            return image.resize((max(1, round(side * self._aspect)), side))
        tall = min(height, width / self._aspect) * self._crop
        wide = tall * self._aspect
        left, top = (width - wide) / 2, (height - tall) / 2
        return image.crop(
            (round(left), round(top), max(round(left + wide), round(left) + 1),
             max(round(top + tall), round(top) + 1))
        )  # fmt: skip

    def _small(self, image: Any) -> Any:
        """At most as large as a thumbnail."""
        width, height = image.size
        share = self._side / max(width, height)
        if share >= 1:
            return image
        size = max(1, round(width * share)), max(1, round(height * share))
        return image.resize(size, require("PIL.Image", extra="vision").Resampling.LANCZOS)


class SampleImages:
    """Small images by their numbers, or by sample index.

    Args:
        images: The images, made small by a `ModelView`.

    Attributes:
        name: Where they come from.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images, self.name = images, images.name
        original = np.asarray(images.original_index)
        # Copies of a sample follow each other in their own order.
        self._order = np.argsort(original, kind="stable")
        self._samples = original[self._order]

    def pixels(self, key: int) -> Array | None:
        """An image, uint8 `[H, W, 3]` or `[H, W]`.

        Args:
            key: Its number, see `image_keys`.

        Returns:
            The image, or None if there is none or it cannot be read.
        """
        number = np.array([key])
        sample, copy = int(sample_of(number)[0]), int(copy_of(number)[0])
        place = int(np.searchsorted(self._samples, sample)) + copy
        if place >= len(self._samples) or self._samples[place] != sample:
            return None
        image = self._images.load(int(self._order[place])).image
        if image is None or isinstance(image, Mapping):
            return None
        return as_pixels(image)

    def __getitem__(self, sample: int) -> Array:
        """The image of a sample; grey where it cannot be read."""
        found = self.pixels(int(image_keys(np.array([sample]), None)[0]))
        return np.full((16, 16), 127, np.uint8) if found is None else found


def as_pixels(image: Any) -> Array:
    """An image as uint8 `[H, W, 3]` or `[H, W]`; floats are stretched from darkest to lightest.

    Example:
        >>> as_pixels(np.array([[[0.0, 1.0]]])).tolist()
        [[0, 255]]
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise LightsaeError(
            f"images have shape {list(pixels.shape)}, expected 1 or 3 colours: a report shows none "
            "of these; leave --images out for sample numbers"
        )
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels.astype(np.float32) - low) / max(high - low, 1e-12)
    return (scaled * 255).round().astype(np.uint8)


def images_of_shards(manifest: Manifest, side: int) -> SampleImages:
    """The images that shards were made of.

    Args:
        manifest: That of the shards.
        side: Pixels that the longer side of an image has at most.

    Raises:
        LightsaeError: If the manifest does not say where they are, or they are not there, or are
            others now.

    Example:
        >>> images_of_shards(Manifest(d_in=4, dtype="float16"), 64)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: the shards do not say which images they are of
    """
    options = images_from(manifest, "--images")
    if options is None:
        raise LightsaeError("the shards do not say which images they are of")
    found = _opened(options, manifest, side)
    before = manifest.settings.get("data")
    if options.dataset is None and before is not None and found.fingerprint != before:
        raise LightsaeError(f"{found.name}: the images changed since the shards were made of them")
    return SampleImages(found)


def images_at(path: str, manifest: Manifest | None, side: int) -> SampleImages:
    """The images at a path that a user gave, in the order of the extraction.

    Args:
        path: A folder of images, an array file, tars, a folder of a Hugging Face dataset, or the
            dotted path of a torch dataset class.
        manifest: That of the shards, if there are any.
        side: Pixels that the longer side of an image has at most.

    Raises:
        LightsaeError: If there are no images, or another number than the shards were made of.
    """
    found = _opened(DataOptions(**_kind_of(path, manifest)), manifest, side)
    expected = None if manifest is None else manifest.settings.get("images")
    if isinstance(expected, int) and len(found) != expected:
        raise LightsaeError(
            f"--images {path} has {len(found)} images, the shards were made of {expected}"
        )
    return SampleImages(found)


def _kind_of(path: str, manifest: Manifest | None) -> dict[str, Any]:
    """The options of a source that a path means, with those of the extraction where they fit."""
    if os.path.isdir(path):
        saved = any((Path(path) / name).is_file() for name in ("dataset_dict.json", "state.json"))
        kind = "huggingface" if saved else "folder"
    elif Path(path).suffix.lower() in _ARRAYS:
        kind = "arrays"
    elif ".tar" in path:
        kind = "webdataset"
    elif not os.path.exists(path) and "." in path and "/" not in path:
        kind = "dataset"
    else:
        raise LightsaeError(
            f"--images {path}: expected a folder of images, an .npz, .npy or .h5 file, tars, or "
            "the dotted path of a dataset class"
        )
    before = {} if manifest is None else manifest.settings.get(IMAGES_FROM) or {}
    kept = {key: value for key, value in before.items() if kind in before and key != kind}
    return {kind: path} | kept


def _opened(options: DataOptions, manifest: Manifest | None, side: int) -> ImageSet:
    """The images, made small."""
    options.check_source()
    settings = {} if manifest is None else manifest.settings
    said = settings.get("preparation")
    view = ModelView(said if isinstance(said, Mapping) else {}, side)
    return open_images(options, view, "RGB", {str(settings.get("data"))})
