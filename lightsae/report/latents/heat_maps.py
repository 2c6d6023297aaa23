"""Where in an image a latent fires, for the images that stand for it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from lightsae.activations import ActivationBatch
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest
from lightsae.report.latents.examples import Examples
from lightsae.report.latents.firing_pass import encoded_rows
from lightsae.sae import SparseAutoencoder

# Patches of all maps together; more would make the page large.
MOST_PATCHES = 6_000_000


@dataclass(frozen=True)
class PatchGrid:
    """How an image is cut into patches.

    Attributes:
        height: Patches from top to bottom.
        width: Patches from left to right.
        first: Token index of the first one.
    """

    height: int
    width: int
    first: int


@dataclass(frozen=True)
class HeatMaps:
    """Activations by patch of the examples of each latent.

    Attributes:
        grid: The patches.
        begins: Where the patches of each example begin, int64 `[d_sae * examples + 1]`.
        patches: Patches that fire, uint16 `[n]`, row by row from the top left.
        values: Their activations as shares of the latent's largest, 1 to 255, uint8 `[n]`.
    """

    grid: PatchGrid
    begins: Array
    patches: Array
    values: Array


def patch_grid(manifest: Manifest, last_token: int) -> PatchGrid | None:
    """How patches lie in an image, or None where rows are no patches or their places unknown.

    Args:
        manifest: That of the shards.
        last_token: Largest token index of their rows.

    Example:
        >>> patch_grid(Manifest(d_in=4, dtype="float16", tokens="patch"), last_token=16)
        PatchGrid(height=4, width=4, first=1)
    """
    if manifest.tokens not in ("patch", "all"):
        return None
    settings = manifest.settings
    ratio = _aspect(settings.get("preparation"))
    known = settings.get("prefix_tokens")
    # Class and register tokens come before; usual models have none, one, or one and four.
    for first in (known,) if isinstance(known, int) else (0, 1, 5, 4, 2, 8, 9):
        count = last_token + 1 - first
        height = isqrt(round(count * ratio)) if count > 0 else 0
        if height and count % height == 0 and _fits(height, count // height, ratio):
            return PatchGrid(height, count // height, first)
    return None


def _aspect(preparation: object) -> float:
    """Height over width of the model's images."""
    size = preparation.get("input_size") if isinstance(preparation, Mapping) else None
    if isinstance(size, list) and len(size) == 3 and size[1] and size[2]:
        return float(size[1]) / float(size[2])
    return 1.0


def _fits(height: int, width: int, ratio: float) -> bool:
    return abs(height / width - ratio) < 0.01 * ratio


def heat_maps(
    sae: SparseAutoencoder,
    batches: Iterable[ActivationBatch],
    examples: Examples,
    grid: PatchGrid,
    tick: Callable[[int], object] = lambda _: None,
    most_patches: int = MOST_PATCHES,
) -> HeatMaps:
    """Where each latent fires in its examples.

    Args:
        sae: The autoencoder.
        batches: All rows of the split.
        examples: Images that stand for each latent.
        grid: How patches lie.
        tick: Told of the rows of each batch.
        most_patches: If more fire, the examples of the lowest rank have no map.

    Returns:
        The maps.
    """
    d_sae, width = examples.keys.shape
    shown = np.unique(examples.keys[examples.keys >= 0])
    wanted = np.flatnonzero(examples.keys.ravel() >= 0)
    keys = _pair_keys(wanted // width, examples.keys.ravel()[wanted], shown)
    order = np.argsort(keys)
    keys, wanted = keys[order], wanted[order]
    parts: list[tuple[Array, Array, Array]] = []
    for batch, places, values, latents in encoded_rows(
        sae, batches, shown, copies=False, tick=tick
    ):
        patch = batch.token_index.numpy() - grid.first
        inside = (patch >= 0) & (patch < grid.height * grid.width)
        row, column = np.nonzero((values > 0) & inside[:, None])
        asked = latents[row, column] * len(shown) + places[row]
        at = np.searchsorted(keys, asked).clip(max=max(len(keys) - 1, 0))
        found = keys[at] == asked if len(keys) else np.zeros(len(asked), bool)
        parts.append((wanted[at[found]], patch[row[found]], values[row, column][found]))
    largest = np.maximum(examples.values.max(axis=1, initial=0), np.finfo(np.float32).tiny)
    return _packed(parts, grid, d_sae, width, largest, most_patches)


def _pair_keys(latents: Array, keys: Array, shown: Array) -> Array:
    """A number for each pair of a latent and a shown image."""
    found: Array = latents.astype(np.int64) * len(shown) + np.searchsorted(shown, keys)
    return found


def _packed(
    parts: list[tuple[Array, Array, Array]],
    grid: PatchGrid,
    d_sae: int,
    width: int,
    largest: Array,
    most: int,
) -> HeatMaps:
    """The patches example by example."""
    empty: list[Any] = [np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)]
    columns = zip(*parts, strict=True) if parts else [[each] for each in empty]
    example, patch, value = (np.concatenate(list(column)) for column in columns)
    while len(example) > most:
        worst = int((example % width).max())
        kept = example % width < worst
        example, patch, value = example[kept], patch[kept], value[kept]
    order = np.lexsort((patch, example))
    example, patch, value = example[order], patch[order], value[order]
    begins = np.concatenate([[0], np.cumsum(np.bincount(example, minlength=d_sae * width))])
    share = np.clip(np.rint(value / largest[example // width] * 255), 1, 255)
    return HeatMaps(grid, begins, patch.astype(np.uint16), share.astype(np.uint8))
