"""Embeddings from a folder of shards of another model, matched by sample."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.errors import LightsaeError
from lightsae.evaluation.embeddings.image_embeddings import ImageEmbeddings, require_directions
from lightsae.evaluation.split_images import SplitImages


def read_embeddings(folder: str | Path, name: str, images: SplitImages) -> ImageEmbeddings:
    """The embedding of each image of a split.

    Rows are matched by sample index, in whatever order they lie. Where both sets have one row per
    copy of a sample, and equally many of each, copies are matched by their order; otherwise the
    rows of a sample are averaged.

    Args:
        folder: Shards that hold every sample of the split; what else they hold is not read.
        name: What outputs call them.
        images: The images of the split.

    Returns:
        Float32 embeddings, in memory: images x d_e x 4 bytes.

    Raises:
        LightsaeError: If samples are missing, or one has no direction, or the folder is not what it
            should be.
    """
    shards = ShardSet(folder)
    try:
        wanted = _WantedRows(shards, images)
        wanted.require_all(str(folder))
        table, place = wanted.of_copies() if wanted.same_copies() else wanted.means_of_samples()
        samples = images.samples if place is None else images.distinct
        require_directions(table, torch.from_numpy(samples), str(folder))
    finally:
        shards.close()
    model = shards.manifest.model or "an unnamed model"
    layer = f" {shards.manifest.layer}" if shards.manifest.layer else ""
    return ImageEmbeddings(name, f"{folder}: {model}{layer}", table, place)


class _WantedRows:
    """Which rows of a folder belong to samples of a split.

    Attributes:
        counts: Int64, rows of each distinct sample of the split.
    """

    def __init__(self, shards: ShardSet, images: SplitImages) -> None:
        self._shards, self._images = shards, images
        self._samples = images.distinct
        self.counts: Array = np.zeros(len(self._samples), np.int64)
        self._found: dict[int, tuple[Array, Array, Array]] = {}
        for chunk in range(len(shards.chunks)):
            sample, token = shards.read_index(chunk)[:2]
            number = np.searchsorted(self._samples, sample)
            number[number == len(self._samples)] = 0
            rows = np.flatnonzero(self._samples[number] == sample)
            if len(rows):
                self._found[chunk] = rows, number[rows], token[rows]
                self.counts += np.bincount(number[rows], minlength=len(self.counts))

    def require_all(self, folder: str) -> None:
        """Refuse a folder that lacks samples."""
        missing = self._samples[self.counts == 0]
        if len(missing):
            raise LightsaeError(
                f"{folder}: has no rows of {len(missing)} of the {len(self._samples)} samples of "
                f"the split, the first is sample {missing[0]}"
            )

    def same_copies(self) -> bool:
        """Whether each row is an image here and there, equally many of each sample."""
        if self._images.tokens is None:
            return False
        _, here = np.unique(self._images.samples, return_counts=True)
        return bool((here == self.counts).all())

    def of_copies(self) -> tuple[Tensor, None]:
        """A row for each image: the copies of a sample in the order of their token index."""
        number, token = (
            np.concatenate([found[column] for found in self._found.values()]) for column in (1, 2)
        )
        place = np.empty(len(number), np.int64)
        place[np.lexsort((token, number))] = np.arange(len(number))
        table = torch.empty(len(place), self._shards.manifest.d_in)
        start = 0
        for chunk, (rows, _, _) in self._found.items():
            at = torch.from_numpy(place[start : start + len(rows)])
            table[at] = self._rows(chunk, rows)
            start += len(rows)
        return table, None

    def means_of_samples(self) -> tuple[Tensor, Tensor]:
        """A row for each sample, and which of them each image has."""
        sums = torch.zeros(len(self._samples), self._shards.manifest.d_in, dtype=torch.float64)
        for chunk, (rows, number, _) in self._found.items():
            sums.index_add_(0, torch.from_numpy(number), self._rows(chunk, rows).double())
        table = sums.div_(torch.from_numpy(self.counts).unsqueeze(1)).float()
        place = np.searchsorted(self._samples, self._images.samples)
        return table, torch.from_numpy(place)

    def _rows(self, chunk: int, rows: Array) -> Tensor:
        """Some rows of a chunk, float32."""
        (activations,) = self._shards.read_activations([chunk])
        return torch.from_numpy(activations[rows])
