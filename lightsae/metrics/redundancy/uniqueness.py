"""Uniqueness: has another latent the same top images?"""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors
from lightsae.metrics.images.top_activating import TopActivating
from lightsae.sae.index_checks import integers

# Pairs of list entries that are counted at once, 16 bytes each.
_PAIRS = 2**22


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
    sizes = torch.bincount(latents, minlength=d_sae)
    order = images.sort(stable=True).indices
    holders = latents[order]
    per_image = torch.bincount(images)
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
