"""Uniqueness: has another latent the same top images?"""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors
from lightsae.metrics.images.top_activating import TopActivating
from lightsae.sae.index_checks import integers

# Pairs of list entries, or of latents, that are counted at once, 16 bytes each.
_PAIRS = 2**22
# Entries of a dense matrix of latents and images at most, 4 bytes each.
_DENSE = 2**27


class UniquenessScores:
    """How far the top images of each latent are its own.

    Attributes:
        scores: One less the largest Jaccard overlap with another latent [d_sae], float64; NaN for a
            latent without images.
        nearest: The latent of the largest overlap, the lowest of equals [d_sae], int64; -1 where
            none overlaps.
        mean: Mean of the scores, float64 scalar; NaN without one.
    """

    def __init__(self, scores: Tensor, nearest: Tensor, mean: Tensor) -> None:
        self.scores = scores
        self.nearest = nearest
        self.mean = mean


def _overlaps(latents: Tensor, images: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """Return the largest Jaccard overlap of each latent with another and which that is.

    Args:
        latents: Of each (latent, image), ascending [entries].
        images: Numbers from 0 on [entries].
        d_sae: Number of latents.
    """
    per_image = torch.bincount(images)
    count = _of_all_latents if _is_dense(per_image, d_sae) else _of_shared_images
    return count(latents, images, per_image, d_sae)


def _is_dense(per_image: Tensor, d_sae: int) -> bool:
    """Whether products of a dense matrix cost less than the pairs of latents that share images.

    A pair of entries takes as long as four pairs of latents and their products over 4,000 images.
    """
    n_images = len(per_image)
    pairs = float(per_image.double().square().sum())
    return d_sae * n_images <= _DENSE and 4 * pairs > d_sae**2 * (1 + n_images / 1000)


def _of_all_latents(
    latents: Tensor, images: Tensor, per_image: Tensor, d_sae: int
) -> tuple[Tensor, Tensor]:
    """By products of the matrix of latents and images, a block of latents with all."""
    holds = torch.zeros(d_sae, len(per_image), device=latents.device)
    holds[latents, images] = 1
    sizes = holds.sum(dim=1).clamp_min(1)  # two without images have nothing in common
    found = []
    for rows in torch.arange(d_sae, device=latents.device).split(max(1, _PAIRS // d_sae)):
        common = holds[rows] @ holds.T
        common[rows - rows[0], rows] = 0
        union = (sizes[rows, None] + sizes).sub_(common)
        found.append(common.double().div_(union).max(dim=1))  # the first of equals
    largest, nearest = (torch.cat(column) for column in zip(*found, strict=True))
    return largest, nearest.where(largest > 0, -1)


def _of_shared_images(
    latents: Tensor, images: Tensor, per_image: Tensor, d_sae: int
) -> tuple[Tensor, Tensor]:
    """By the pairs of latents that hold an image both."""
    sizes = torch.bincount(latents, minlength=d_sae)
    order = images.sort(stable=True).indices
    holders = latents[order]
    starts = per_image.cumsum(0) - per_image
    work = torch.zeros_like(sizes).index_add_(0, latents, per_image[images])
    largest = torch.zeros(d_sae, dtype=torch.float64, device=latents.device)
    nearest = torch.full_like(sizes, -1)
    for first, last in _parts(work.tolist(), d_sae):
        chosen = (latents >= first) & (latents < last)
        mine, theirs = latents[chosen], images[chosen]
        lengths = per_image[theirs]
        offsets = torch.arange(int(lengths.sum()), device=latents.device)
        offsets = offsets - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        others = holders[starts[theirs].repeat_interleave(lengths) + offsets]
        keys = mine.repeat_interleave(lengths) * d_sae + others
        pairs, common = keys[mine.repeat_interleave(lengths) != others].unique(return_counts=True)
        left, right = pairs // d_sae, pairs % d_sae
        jaccard = common.double() / (sizes[left] + sizes[right] - common)
        largest.scatter_reduce_(0, left, jaccard, "amax")
        best = jaccard == largest[left]
        nearest.scatter_reduce_(0, left[best], right[best], "amin", include_self=False)
    return largest, nearest


def _parts(work: list[int], d_sae: int) -> list[tuple[int, int]]:
    """Split the latents into runs of which none exceeds the memory of `_PAIRS`, if it can."""
    parts, first, done = [], 0, 0
    for latent, pairs in enumerate(work):
        if latent > first and done + pairs > _PAIRS:
            parts.append((first, latent))
            first, done = latent, 0
        done += pairs
    return [*parts, (first, d_sae)]


def uniqueness(samples: Tensor) -> UniquenessScores:
    """How far the top images of each latent are its own.

    One less the largest Jaccard overlap `|T_i & T_j| / |T_i or T_j|` of latent j with another, T_j
    being the set of its top images (`top_activating`): 1 where no other latent has one of them, 0
    where another has the same. Latents without images are left out.

    Args:
        samples: The images [d_sae, n], integers, none twice in a row; -1 where there are fewer.

    Returns:
        The scores, float64.

    It takes O(entries^2 / images), the pairs of latents that share an image, and over few images
    O(d_sae^2 images) instead, where that is less.

    Raises:
        LightsaeError: If it is no integer matrix.

    Example:
        >>> samples = torch.tensor([[1, 2], [2, 3], [4, -1], [-1, -1]])
        >>> uniqueness(samples).scores
        tensor([0.6667, 0.6667, 1.0000,    nan], dtype=torch.float64)
    """
    require_tensors(samples=samples)
    if samples.ndim != 2:
        raise LightsaeError(f"samples has shape {list(samples.shape)}, expected [d_sae, n]")
    samples = integers("samples", samples)
    present = samples != -1
    latents = present.nonzero()[:, 0]
    images = samples[present].unique(return_inverse=True)[1]
    largest, nearest = _overlaps(latents, images, len(samples))
    scores = (1 - largest).where(present.any(1), torch.nan)
    return UniquenessScores(scores, nearest, scores.nanmean())


class Uniqueness(TopActivating):
    """How far the top images of each latent are its own, over everything seen.

    Takes codes and keeps the top images as `TopActivating` does. Whoever has that metric anyway
    gives `uniqueness` its samples.

    Args:
        d_sae: Number of latents.
        n: Images per latent.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = Uniqueness(d_sae=2, n=2)
        >>> metric.update(torch.ones(3, 1), torch.tensor([[0], [0], [1]]), torch.arange(3))
        >>> metric.update(torch.ones(1, 1), torch.tensor([[1]]), torch.tensor([1]))
        >>> metric.compute().scores
        tensor([0.6667, 0.6667], dtype=torch.float64)
    """

    def compute(self) -> UniquenessScores:  # type: ignore[override]
        """Return the scores of all latents."""
        return uniqueness(super().compute().samples)
