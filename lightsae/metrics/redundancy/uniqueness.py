"""Uniqueness: has another latent the same top images?"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors
from lightsae.metrics.images.top_activating import TopActivating
from lightsae.sae.index_checks import integers

# Pairs of list entries that are counted at once, 16 bytes each.
_PAIRS = 2**22


class UniquenessScores(NamedTuple):
    """How far the top images of each latent are its own.

    Attributes:
        scores: One less the largest Jaccard overlap with another latent [d_sae], float64; NaN for a
            latent without images.
        nearest: The latent of the largest overlap, the lowest of equals [d_sae], int64; -1 where
            none overlaps.
        mean: Mean of the scores, float64 scalar; NaN without one.
    """

    scores: Tensor
    nearest: Tensor
    mean: Tensor


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
    work = torch.bincount(latents, per_image[images].double(), minlength=d_sae).long()
    largest = torch.zeros(d_sae, dtype=torch.float64, device=latents.device)
    nearest = torch.full_like(sizes, -1)
    for first, last in _parts(work.tolist(), d_sae):
        chosen = (latents >= first) & (latents < last)
        mine, theirs = latents[chosen], images[chosen]
        lengths = per_image[theirs]
        offsets = torch.arange(int(lengths.sum()), device=latents.device)
        offsets = offsets - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        others = holders[starts[theirs].repeat_interleave(lengths) + offsets]
        keys = (mine - first).repeat_interleave(lengths) * d_sae + others
        common = torch.bincount(keys, minlength=(last - first) * d_sae).view(-1, d_sae)
        rows = torch.arange(last - first, device=latents.device)
        common[rows, rows + first] = 0
        jaccard = common / (sizes[first:last, None] + sizes - common)
        largest[first:last], nearest[first:last] = jaccard.nan_to_num(0).max(1)
    return largest, nearest.where(largest > 0, -1)


def _parts(work: list[int], d_sae: int) -> list[tuple[int, int]]:
    """Split the latents into runs of which none exceeds the memory of `_PAIRS`, if it can."""
    parts, first, done = [], 0, 0
    for latent, pairs in enumerate(work):
        cost = pairs + d_sae
        if latent > first and done + cost > _PAIRS:
            parts.append((first, latent))
            first, done = latent, 0
        done += cost
    return [*parts, (first, d_sae)]


def uniqueness(samples: Tensor) -> UniquenessScores:
    """How far the top images of each latent are its own.

    `u_j = 1 - max_{i != j} |T_i & T_j| / |T_i | T_j|` with T_j the set of the top images of latent j
    (`top_activating`): 1 where no other latent has one of them, 0 where another has the same.
    Latents without images are left out.

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
