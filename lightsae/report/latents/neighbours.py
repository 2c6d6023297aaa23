"""The latents near a latent: by their decoder rows, by firing together, in another run."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array

_BLOCK_CELLS = 16_000_000


class Neighbours(NamedTuple):
    """The nearest latents.

    Attributes:
        latents: Int64 `[d_sae, n]`, nearest first; -1 where there are fewer.
        likeness: Float32 `[d_sae, n]`.
    """

    latents: Tensor
    likeness: Tensor


def nearest_by_decoder(decoder: Tensor, n: int = 6) -> Neighbours:
    """Latents whose decoder rows have the largest cosine.

    Args:
        decoder: W_dec [d_sae, d_in].
        n: How many.

    Example:
        >>> nearest_by_decoder(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), n=1).latents
        tensor([[2],
                [2],
                [0]])
    """
    return _nearest(decoder, decoder, n, skip_self=True)


def nearest_in_other(decoder: Tensor, other: Tensor, n: int = 1) -> Neighbours:
    """Latents of another dictionary whose decoder rows have the largest cosine.

    Args:
        decoder: W_dec [d_sae, d_in].
        other: W_dec of the other one [d_sae', d_in].
        n: How many.
    """
    return _nearest(decoder, other, n, skip_self=False)


def _nearest(decoder: Tensor, other: Tensor, n: int, *, skip_self: bool) -> Neighbours:
    """The largest cosines, in blocks."""
    mine, theirs = (_unit(rows) for rows in (decoder, other))
    n = min(n, len(theirs) - skip_self)
    block = max(1, _BLOCK_CELLS // max(len(theirs), 1))
    latents, likeness = [], []
    for begin in range(0, len(mine), block):
        cosine = mine[begin : begin + block] @ theirs.T
        if skip_self:
            place = torch.arange(len(cosine))
            cosine[place, begin + place] = -2
        # Stable, so that ties go to the lower latent.
        ranked = cosine.topk(max(n, 0), dim=1)
        latents.append(ranked.indices)
        likeness.append(ranked.values)
    return Neighbours(torch.cat(latents), torch.cat(likeness))


def _unit(rows: Tensor) -> Tensor:
    """Rows of unit norm, float32; those of zeros stay so."""
    return torch.nn.functional.normalize(rows.detach().float(), dim=1)


def cosine_of_pairs(decoder: Tensor, other: Tensor) -> Tensor:
    """Cosine of the decoder rows of equal index in two dictionaries, [d_sae]."""
    return (_unit(decoder) * _unit(other)).sum(dim=1)


def nearest_by_co_firing(rows: Array, d_sae: int, n: int = 6, least: int = 2) -> Neighbours:
    """Latents that fire on the same rows: shared rows over the rows of either (Jaccard).

    Args:
        rows: Latents of each row, integers `[rows, k]`, -1 where fewer fire.
        d_sae: Size of the dictionary.
        n: How many.
        least: Rows that two latents share at least.

    Example:
        >>> import numpy as np
        >>> found = nearest_by_co_firing(np.array([[0, 1], [0, 1], [2, -1]]), d_sae=3, n=1)
        >>> found.latents.tolist(), found.likeness.tolist()
        ([[1], [0], [-1]], [[1.0], [1.0], [0.0]])
    """
    latents = torch.from_numpy(rows)
    fires = latents >= 0
    row, place = fires.nonzero(as_tuple=True)
    latent = latents[row, place]
    order = latent.argsort(stable=True)
    latent, row = latent[order], row[order]
    counts = torch.bincount(latent, minlength=d_sae)
    n = min(n, d_sae - 1)
    found = torch.full((d_sae, n), -1)
    likeness = torch.zeros(d_sae, n)
    block = max(1, _BLOCK_CELLS // d_sae)
    ends = counts.cumsum(0)
    for begin in range(0, d_sae, block):
        end = min(begin + block, d_sae)
        part = slice(int(ends[begin] - counts[begin]), int(ends[end - 1]))
        together = _shared_rows(latent[part] - begin, latents[row[part]], end - begin, d_sae)
        together[torch.arange(end - begin), torch.arange(begin, end)] = 0
        either = counts[begin:end, None] + counts - together
        jaccard = together / either.clamp_min(1)
        jaccard[together < least] = 0
        ranked = jaccard.topk(n, dim=1)
        kept = ranked.values > 0
        found[begin:end][kept] = ranked.indices[kept]
        likeness[begin:end] = ranked.values
    return Neighbours(found, likeness)


def _shared_rows(latent: Tensor, partners: Tensor, size: int, d_sae: int) -> Tensor:
    """How many rows each latent of a block shares with each latent, int32 `[size, d_sae]`."""
    counts = torch.zeros(size * d_sae, dtype=torch.int32)
    one = torch.ones(1, dtype=torch.int32)
    step = max(1, _BLOCK_CELLS // max(partners.shape[1], 1))
    for begin in range(0, len(latent), step):
        part = partners[begin : begin + step]
        keys = (latent[begin : begin + step, None] * d_sae + part)[part >= 0]
        counts.index_add_(0, keys, one.expand(len(keys)))
    return counts.view(size, d_sae)
