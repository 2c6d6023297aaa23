"""Numbers of images: the sample, and which of its copies where each copy is an image of its own."""

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest

_COPIES = 1 << 20
_ONE_ROW = ("class", "pooled")


def has_copies(manifest: Manifest) -> bool:
    """Whether rows of one sample are images of their own, told apart by their token index.

    Example:
        >>> has_copies(Manifest(d_in=4, dtype="float16", tokens="patch"))
        False
    """
    return manifest.tokens in _ONE_ROW


def image_keys(samples: Array, tokens: Array | None) -> Array:
    """A number for each image, in the order of samples.

    Args:
        samples: Sample indices, int64; -1 for no image, which is kept.
        tokens: Token indices where copies are images of their own, or None.

    Example:
        >>> keys = image_keys(np.array([3, -1]), np.array([2, 0]))
        >>> sample_of(keys).tolist(), copy_of(keys).tolist()
        ([3, -1], [2, 0])
    """
    copies = np.zeros_like(samples) if tokens is None else tokens
    found: Array = np.where(samples < 0, -1, samples * _COPIES + copies.clip(0, _COPIES - 1))
    return found


def sample_of(keys: Array) -> Array:
    """The sample index of each image, -1 for none."""
    found: Array = np.where(keys < 0, -1, keys // _COPIES)
    return found


def copy_of(keys: Array) -> Array:
    """Which copy of its sample each image is, 0 for the first."""
    found: Array = np.where(keys < 0, 0, keys % _COPIES)
    return found
