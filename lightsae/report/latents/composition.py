"""Histogram of a latent's activations and the classes of its images."""

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.report.latents.firing_pass import Firings


def activation_histogram(firings: Firings, bins: int = 20) -> tuple[Array, Array]:
    """How many images a latent fires on how strongly, in equal parts from 0 to its largest.

    Args:
        firings: Where latents fire.
        bins: Parts.

    Returns:
        Counts int64 `[d_sae, bins]` and the largest activation of each latent, float32 `[d_sae]`.

    Example:
        >>> firings = Firings(np.arange(3), None, np.array([0, 3, 3]), np.arange(3),
        ...     np.array([4.0, 3.0, 1.0]), np.zeros((0, 1)), 3)
        >>> counts, largest = activation_histogram(firings, bins=2)
        >>> counts.tolist(), largest.tolist()
        ([[1, 2], [0, 0]], [4.0, 0.0])
    """
    largest: Array = np.zeros(firings.d_sae, np.float32)
    fires = np.diff(firings.begins) > 0
    largest[fires] = firings.values[firings.begins[:-1][fires]]
    latents = firings.latent_of_pair()
    share = firings.values / np.maximum(largest[latents], np.finfo(np.float32).tiny)
    places = np.minimum((share * bins).astype(np.int64), bins - 1)
    counts = np.bincount(latents.astype(np.int64) * bins + places, minlength=firings.d_sae * bins)
    return counts.reshape(firings.d_sae, bins), largest


def class_make_up(firings: Firings, most: int = 6) -> tuple[Array, Array, Array]:
    """The most frequent classes among the images that a latent fires on.

    Args:
        firings: Where latents fire.
        most: How many classes; ties go to the lower one.

    Returns:
        Classes int32 `[d_sae, most]`, -1 where there are fewer; their images int64 likewise; and
        all images with a class, int64 `[d_sae]`.

    Example:
        >>> firings = Firings(np.arange(3), np.array([7, 7, 2]), np.array([0, 3, 3]), np.arange(3),
        ...     np.array([4.0, 3.0, 1.0]), np.zeros((0, 1)), 3)
        >>> classes, counts, total = class_make_up(firings, most=2)
        >>> classes.tolist(), counts.tolist(), total.tolist()
        ([[7, 2], [-1, -1]], [[2, 1], [0, 0]], [3, 0])
    """
    classes: Array = np.full((firings.d_sae, most), -1, np.int32)
    counts: Array = np.zeros((firings.d_sae, most), np.int64)
    if firings.labels is None:
        return classes, counts, np.zeros(firings.d_sae, np.int64)
    labels = firings.labels[firings.images]
    known = labels >= 0
    pairs = np.stack([firings.latent_of_pair()[known].astype(np.int64), labels[known]])
    (latent, label), count = np.unique(pairs, axis=1, return_counts=True)
    order = np.lexsort((label, -count, latent))
    latent, label, count = latent[order], label[order], count[order]
    begins = np.concatenate([[0], np.cumsum(np.bincount(latent, minlength=firings.d_sae))])
    rank = np.arange(len(latent)) - begins[latent]
    kept = rank < most
    classes[latent[kept], rank[kept]] = label[kept]
    counts[latent[kept], rank[kept]] = count[kept]
    total = np.bincount(latent, weights=count, minlength=firings.d_sae).astype(np.int64)
    return classes, counts, total
