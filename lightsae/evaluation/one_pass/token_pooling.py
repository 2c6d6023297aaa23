"""Images whose rows are spread over batches and ranks, brought together at the end of a pass."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from lightsae.activations import ActivationBatch
from lightsae.evaluation.one_pass.image_measures import ImageBatch
from lightsae.evaluation.split_images import SplitImages
from lightsae.metrics import ImageCodes, Pooling
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae import SparseCode

_IMAGES = 4096


class PooledImages:
    """Pools the codes of each image's rows, and averages their inputs and keeps their label.

    Memory grows with the images, not with their rows: an entry of 24 bytes for each image and
    latent that fires, and where the own input is wanted 8 d_in bytes for each image.

    Args:
        images: The images of the split.
        d_sae: Size of the dictionary.
        d_in: Width of the input.
        pooling: How rows become one activation: max or mean.
        own: Whether the mean input is wanted.
        device: Where the codes are.
    """

    def __init__(
        self,
        images: SplitImages,
        d_sae: int,
        d_in: int,
        pooling: Pooling,
        own: bool,
        device: torch.device,
    ) -> None:
        self._images = images
        self._codes = ImageCodes(d_sae, pooling=pooling).to(device)
        self._labels = _Labels(len(images)).to(device) if images.n_classes else None
        self._own = _Means(len(images), d_in).to(device) if own else None

    def update(self, batch: ActivationBatch, code: SparseCode) -> None:
        """Add rows."""
        numbers = self._images.number(batch.sample_index, batch.token_index)
        self._codes.update(code, numbers)
        if self._labels is not None and batch.label is not None:
            self._labels.update(numbers, batch.label)
        if self._own is not None:
            self._own.update(numbers, batch.activations)

    def batches(self) -> Iterator[ImageBatch]:
        """This rank's share of the images that all ranks have seen."""
        codes = self._codes.compute()
        labels = None if self._labels is None else self._labels.compute()
        own = None if self._own is None else self._own.compute()
        rank, world = process_place()
        first, last = (len(codes.sample_index) * part // world for part in (rank, rank + 1))
        bounds = torch.arange(first, last + _IMAGES, _IMAGES).clamp(max=last).tolist()
        ends = torch.searchsorted(codes.rows, torch.tensor(bounds, device=codes.rows.device))
        for part in range(len(bounds) - 1):
            start, end = bounds[part], bounds[part + 1]
            if start == end:
                continue
            entries = slice(int(ends[part]), int(ends[part + 1]))
            numbers = codes.sample_index[start:end]
            yield ImageBatch(
                codes.values[entries],
                codes.indices[entries],
                codes.rows[entries] - start,
                numbers,
                None if own is None else own[numbers],
                None if labels is None else labels[numbers],
            )


def process_place() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Labels(ExactMetric):
    """The class of each image, -1 where no row told it."""

    full_state_update = False
    labels: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.add_state("labels", torch.full((n,), -1), dist_reduce_fx="max")

    def update(self, numbers: Tensor, label: Tensor) -> None:
        """Keep the label of rows' images."""
        self.labels = self.labels.scatter(0, numbers, label)

    def compute(self) -> Tensor:
        """Int64 `[n]`."""
        return self.labels


class _Means(ExactMetric):
    """The mean row of each image."""

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, n: int, d_in: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(n, d_in, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(n, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, numbers: Tensor, x: Tensor) -> None:
        """Add rows; in place, for the sums are large."""
        self.sums.index_add_(0, numbers, x.detach().double())
        self.counts.index_add_(0, numbers, torch.ones_like(numbers))

    def compute(self) -> Tensor:
        """Float64 `[n, d_in]`."""
        return self.sums / self.counts.clamp(min=1).unsqueeze(1)
