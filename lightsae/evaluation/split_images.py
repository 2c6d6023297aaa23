"""The images of a split, numbered, and which of them a row belongs to."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.loading.splits import Split
from lightsae.activations.shards.dtypes import Array

_ONE_ROW, _SEVERAL_ROWS = ("class", "pooled"), ("patch", "all")


@dataclass(frozen=True)
class SplitImages:
    """The images of a split, in the order of their samples.

    Where each image has one row (class or pooled tokens), copies of a sample are images of their
    own, told apart by their token index. Where an image has several rows (patches), a sample is one
    image, and what is measured per image is measured on its pooled codes.

    Attributes:
        samples: Int64 `[n]`, sample index of each image, ascending.
        tokens: Int64 `[n]`, token index of each image's row; None where images have several rows.
        rows: Number of rows of the split.
        told_apart: Whether sample and token index tell every row from the others.
        grid: Rows and columns of patches, where each image has all patches of a square grid.
        first_patch: Token index of the first patch.
        labels: Int64 `[n]`, class of each image, or None without labels or before they are known.
        n_classes: Number of classes; 0 where they are unknown.

    Example:
        >>> images = SplitImages(np.array([3, 5]), np.array([0, 0]), 2, None, 0)
        >>> images.number(torch.tensor([5, 3, 5]), torch.zeros(3, dtype=torch.int64))
        tensor([1, 0, 1])
    """

    samples: Array
    tokens: Array | None
    rows: int
    labels: Array | None
    n_classes: int
    told_apart: bool = True
    grid: tuple[int, int] | None = None
    first_patch: int = 0

    @classmethod
    def of(cls, data: SplitDataModule, split: Split) -> "SplitImages":
        """Find the images of a split from the index of its rows.

        Args:
            data: The data module.
            split: Its split.

        Raises:
            LightsaeError: If there is no such split.
        """
        if data.manifest.tokens in _SEVERAL_ROWS:
            return cls._of_samples(data, split)
        columns: Array = np.concatenate(list(data.index_blocks(split)), axis=1)
        columns = np.ascontiguousarray(columns[:, np.lexsort((columns[1], columns[0]))])
        new_sample = np.append(True, np.diff(columns[0]) != 0)
        told_apart = bool((new_sample | np.append(True, np.diff(columns[1]) != 0)).all())
        if new_sample.all() or (data.manifest.tokens in _ONE_ROW and told_apart):
            labels = columns[2] if len(columns) > 2 else None
            classes = _count_classes(data, labels)
            return cls(columns[0], columns[1], columns.shape[1], labels, classes)
        found = cls._of_samples(data, split)
        return replace(found, told_apart=told_apart)

    @classmethod
    def _of_samples(cls, data: SplitDataModule, split: Split) -> "SplitImages":
        """Every sample an image of several rows; of these no more than a block is in memory."""
        samples = labels = np.empty(0, np.int64)
        rows, low, high = 0, np.iinfo(np.int64).max, 0
        for block in data.index_blocks(split):
            rows, low, high = (
                rows + block.shape[1],
                min(low, int(block[1].min())),
                max(high, int(block[1].max())),
            )
            label = block[2] if len(block) > 2 else np.full_like(block[0], -1)
            both = np.concatenate([samples, block[0]])
            samples, first = np.unique(both, return_index=True)
            labels = np.concatenate([labels, label])[first]
        has_labels = data.manifest.has_labels and bool((labels >= 0).any())
        known = labels if has_labels else None
        patches = data.manifest.tokens == "patch"
        grid = _square_grid(rows, len(samples), high - low + 1) if patches else None
        classes = _count_classes(data, known)
        return cls(samples, None, rows, known, classes, grid=grid, first_patch=int(low))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples)

    @cached_property
    def distinct(self) -> Array:
        """Int64, the distinct samples, ascending."""
        found: Array = np.unique(self.samples)
        return found

    def number(self, sample: Tensor, token: Tensor) -> Tensor:
        """Which image rows belong to.

        Args:
            sample: Int64 `[B]`, sample index of each row of the split.
            token: Int64 `[B]`, its token index.

        Returns:
            Int64 `[B]`, numbers of images, on the device of `sample`.
        """
        where = torch.searchsorted(torch.from_numpy(self.samples), sample.cpu())
        if self._keys is not None:
            span, keys = self._keys
            first = self._sample_number[where.numpy()]
            where = torch.searchsorted(keys, torch.from_numpy(first) * span + token.cpu())
        return where.to(sample.device)

    @cached_property
    def _sample_number(self) -> Array:
        """Int64 `[n]`, number of each image's sample among the distinct ones."""
        found: Array = np.cumsum(np.append(False, np.diff(self.samples) != 0))
        return found

    @cached_property
    def _keys(self) -> tuple[int, Tensor] | None:
        """Sample and token of each image as one number; None where the sample alone tells it."""
        if self.tokens is None or len(self.distinct) == len(self):
            return None
        span = int(self.tokens.max()) + 1
        return span, torch.from_numpy(self._sample_number * span + self.tokens)


def _count_classes(data: SplitDataModule, labels: Array | None) -> int:
    """Number of classes: those that have names, or as many as the labels need."""
    if not data.manifest.has_labels:
        return 0
    if data.manifest.classes or labels is None:
        return len(data.manifest.classes)
    return int(labels.max()) + 1


def _square_grid(rows: int, n_images: int, span: int) -> tuple[int, int] | None:
    """Rows and columns of the patches of every image, if they are a whole square.

    Example:
        >>> _square_grid(rows=27, n_images=3, span=9), _square_grid(rows=26, n_images=3, span=9)
        ((3, 3), None)
    """
    side = math.isqrt(span)
    complete = span * n_images == rows and side * side == span and side > 1
    return (side, side) if complete else None
