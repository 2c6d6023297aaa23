"""One pass over a split: every image that each latent fires on, as long as they fit into memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lightsae.activations import ActivationBatch, ActivationDataModule
from lightsae.activations.loading.splits import Split, hash_samples
from lightsae.activations.shards.dtypes import Array
from lightsae.report.latents.image_keys import has_copies, image_keys
from lightsae.sae import SparseAutoencoder

# Pairs of a latent and an image; each takes 12 bytes, and as much again while they are sorted.
MOST_PAIRS = 16_000_000
MOST_ROWS = 100_000
_LEAST_IMAGES = 500
_SAMPLING_SEED = 0x5AE


@dataclass(frozen=True)
class Firings:
    """The images that each latent fires on, strongest first; ties by the lower number.

    Attributes:
        keys: Number of each image, int64 `[images]`, ascending; see `image_keys`.
        labels: Class of each image, int64 `[images]`, or None.
        begins: Where the pairs of each latent begin, int64 `[d_sae + 1]`.
        images: Of each pair the image, int32 `[pairs]`, a place in `keys`.
        values: Of each pair the largest activation among the image's rows, float32 `[pairs]`.
        rows: Latents of rows drawn at random, int32 `[rows, k]`, -1 where fewer fire; k is that of
            the fullest row.
        of_images: Images of the whole split.
    """

    keys: Array
    labels: Array | None
    begins: Array
    images: Array
    values: Array
    rows: Array
    of_images: int

    @property
    def d_sae(self) -> int:
        """Size of the dictionary."""
        return len(self.begins) - 1

    def of(self, latent: int) -> tuple[Array, Array]:
        """Images and activations of a latent, strongest first."""
        part = slice(self.begins[latent], self.begins[latent + 1])
        return self.images[part], self.values[part]

    def latent_of_pair(self) -> Array:
        """Of each pair the latent, int32 `[pairs]`."""
        latents = np.arange(self.d_sae, dtype=np.int32)
        return np.repeat(latents, np.diff(self.begins))


class SplitIndex(NamedTuple):
    """What a split consists of.

    Attributes:
        keys: Number of each image, int64 `[images]`, ascending.
        rows: Number of rows.
        last_token: Largest token index.
    """

    keys: Array
    rows: int
    last_token: int


def split_index(data: ActivationDataModule, split: Split) -> SplitIndex:
    """The images of a split; no activation is read."""
    keys, rows, last = np.empty(0, np.int64), 0, 0
    copies = has_copies(data.manifest)
    for block in data.index_blocks(split):
        keys = np.union1d(keys, image_keys(block[0], block[1] if copies else None))
        rows += block.shape[1]
        last = max(last, int(block[1].max(initial=0)))
    return SplitIndex(keys, rows, last)


def drawn_images(keys: Array, rows: int, k: int, most_pairs: int = MOST_PAIRS) -> Array:
    """As many of a split's images as can be looked at, drawn by a hash; all, if they fit.

    Args:
        keys: The images, int64 `[images]`.
        rows: Rows of the split.
        k: Latents per row.
        most_pairs: How many pairs of a latent and an image may be kept.

    Example:
        >>> keys = np.arange(4000)
        >>> len(drawn_images(keys, 4000, 8)), len(drawn_images(keys, 4000, 8, most_pairs=1))
        (4000, 500)
    """
    per_image = max(1, k * rows // max(len(keys), 1))
    most = max(_LEAST_IMAGES, most_pairs // per_image)
    if len(keys) <= most:
        return keys
    order = np.argsort(hash_samples(keys, _SAMPLING_SEED))[:most]
    return np.sort(keys[order])


@torch.no_grad()
def encoded_rows(
    sae: SparseAutoencoder,
    batches: Iterable[ActivationBatch],
    keys: Array,
    *,
    copies: bool,
    tick: Callable[[int], object] = lambda _: None,
) -> Iterator[tuple[ActivationBatch, Array, Array, Array]]:
    """Encode the rows of some images.

    Args:
        sae: The autoencoder.
        batches: Rows of a split.
        keys: The images, ascending.
        copies: Whether copies are images of their own.
        tick: Told of the rows of each batch.

    Yields:
        The batch with the rows of these images, the place of each row in `keys` `[rows]`, its
        activations and latents `[rows, k]`.
    """
    dtype = sae.W_enc.dtype
    for batch in batches:
        tick(len(batch.activations))
        tokens = batch.token_index.numpy() if copies else None
        found = image_keys(batch.sample_index.numpy(), tokens)
        places = np.searchsorted(keys, found).clip(max=max(len(keys) - 1, 0))
        kept = keys[places] == found if len(keys) else np.zeros(len(found), bool)
        if not kept.any():
            continue
        mask = torch.from_numpy(kept)
        label = None if batch.label is None else batch.label[mask]
        part = ActivationBatch(
            batch.activations[mask].to(dtype), batch.sample_index[mask], batch.token_index[mask],
            label,
        )  # fmt: skip
        code = sae.encode(part.activations)
        yield part, places[kept], code.values.float().numpy(), code.indices.numpy()


def firing_pass(
    sae: SparseAutoencoder,
    batches: Iterable[ActivationBatch],
    keys: Array,
    *,
    copies: bool,
    rows: int,
    of_images: int,
    tick: Callable[[int], object] = lambda _: None,
) -> Firings:
    """Find the images that each latent fires on.

    Args:
        sae: The autoencoder.
        batches: All rows of a split.
        keys: The images to look at, ascending; see `drawn_images`.
        copies: Whether copies are images of their own.
        rows: Rows of the split.
        of_images: Images of the split.
        tick: Told of the rows of each batch.
    """
    labels: Array = np.full(len(keys), -1, np.int64)
    parts: list[tuple[Array, Array, Array]] = []
    drawn: list[Array] = []
    generator = np.random.default_rng(_SAMPLING_SEED)
    for batch, places, values, latents in encoded_rows(
        sae, batches, keys, copies=copies, tick=tick
    ):
        if batch.label is not None:
            labels[places] = batch.label.numpy()
        fires = values > 0
        image = np.broadcast_to(places[:, None].astype(np.int32), values.shape)
        parts.append(_strongest(latents[fires].astype(np.int32), image[fires], values[fires]))
        chosen = generator.random(len(places)) < MOST_ROWS / max(rows, 1)
        drawn.append(np.where(fires, latents, -1)[chosen].astype(np.int32))
    latent, image, value = _merged(parts)
    order = np.lexsort((image, -value, latent))
    begins = np.concatenate([[0], np.cumsum(np.bincount(latent, minlength=sae.d_sae))])
    found = _below_each_other(drawn)
    has_labels = bool((labels >= 0).any())
    return Firings(
        keys, labels if has_labels else None, begins, image[order], value[order], found,
        of_images,
    )  # fmt: skip


def _below_each_other(parts: list[Array]) -> Array:
    """Latents of rows, -1 beyond the places of their batch."""
    width = max((part.shape[1] for part in parts), default=1)
    padded = [
        np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts
    ]
    return np.concatenate(padded) if padded else np.zeros((0, width), np.int32)


def _merged(parts: list[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """The pairs of all batches: the rows of an image may lie in several."""
    if not parts:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    latent, image, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return _strongest(latent, image, value)


def _strongest(latent: Array, image: Array, value: Array) -> tuple[Array, Array, Array]:
    """Each pair of a latent and an image once, with its largest value."""
    order = np.lexsort((-value, image, latent))
    latent, image, value = latent[order], image[order], value[order]
    first = np.ones(len(latent), bool)
    first[1:] = (latent[1:] != latent[:-1]) | (image[1:] != image[:-1])
    return latent[first], image[first], value[first]
