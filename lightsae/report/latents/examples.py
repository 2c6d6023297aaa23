"""Which images stand for a latent: the strongest, some from the middle, the weakest."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.report.latents.firing_pass import Firings

# The middle of a latent's images: between these shares of them, by rank.
_MIDDLE = (0.35, 0.65)


@dataclass(frozen=True)
class Examples:
    """Images and activations that stand for each latent; -1 marks an empty place.

    Attributes:
        keys: Numbers of images, int64 `[d_sae, top + middle + bottom]`.
        values: Float32, likewise.
        top: Number of places for the strongest.
        middle: Number of places for the middle.
        bottom: Number of places for the weakest.
    """

    keys: Array
    values: Array
    top: int
    middle: int
    bottom: int


def strongest(keys: Array, values: Tensor, count: int) -> Examples:
    """Examples of an evaluation's strongest images alone.

    Args:
        keys: Numbers of the images, int64 `[d_sae, n]`, -1 where there are fewer.
        values: `top_values` of it.
        count: How many to keep.
    """
    kept = keys[:, :count]
    return Examples(kept, values[:, :count].float().numpy(), kept.shape[1], 0, 0)


def choose_examples(
    firings: Firings, top: int, middle: int, bottom: int, whole: Examples | None = None
) -> Examples:
    """Choose images for every latent; none stands twice for one latent.

    Of the middle those are preferred that stand for some latent already, so that a page needs fewer
    images.

    Args:
        firings: Where latents fire.
        top: How many of the strongest.
        middle: How many of the middle.
        bottom: How many of the weakest.
        whole: The strongest of the whole split, where `firings` are of a part of it.

    Example:
        >>> firings = Firings(np.arange(4), None, np.array([0, 4, 4]), np.arange(4),
        ...     np.array([4.0, 3.0, 2.0, 1.0]), np.zeros((0, 1)), 4)
        >>> choose_examples(firings, 2, 0, 1).keys
        array([[ 0,  1,  3],
               [-1, -1, -1]])
    """
    d_sae, width = firings.d_sae, top + middle + bottom
    keys: Array = np.full((d_sae, width), -1, np.int64)
    values: Array = np.zeros((d_sae, width), np.float32)
    shown = np.zeros(len(firings.keys), bool)
    for latent in range(d_sae):
        images, strengths = firings.of(latent)
        head = min(top, len(images))
        keys[latent, :head] = firings.keys[images[:head]]
        values[latent, :head] = strengths[:head]
        tail = min(bottom, len(images) - head)
        if tail:
            place = slice(top + middle, top + middle + tail)
            keys[latent, place] = firings.keys[images[-tail:]]
            values[latent, place] = strengths[-tail:]
            shown[images[-tail:]] = True
        shown[images[:head]] = True
    for latent in range(d_sae) if middle else ():
        images, strengths = firings.of(latent)
        chosen = _middle(images, shown, top, middle, bottom)
        shown[images[chosen]] = True
        keys[latent, top : top + len(chosen)] = firings.keys[images[chosen]]
        values[latent, top : top + len(chosen)] = strengths[chosen]
    if whole is not None:
        count = min(top, whole.top)
        keys[:, :top], values[:, :top] = -1, 0
        keys[:, :count], values[:, :count] = whole.keys[:, :count], whole.values[:, :count]
    return Examples(keys, values, top, middle, bottom)


def _middle(images: Array, shown: Array, top: int, middle: int, bottom: int) -> Array:
    """Ranks of the middle images, ascending: near the middle rank, shown ones first."""
    count = len(images)
    low, high = max(top, int(count * _MIDDLE[0])), min(count - bottom, int(count * _MIDDLE[1]) + 1)
    ranks = np.arange(low, high)
    if len(ranks) == 0:
        low, high = top, count - bottom
        ranks = np.arange(low, max(low, high))
    order = np.lexsort((np.abs(ranks - (count - 1) / 2), ~shown[images[ranks]]))
    return np.sort(ranks[order[:middle]])
