"""Stability of latents: in how many of the other seeds a similar one is found."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.matching.cosine import nearest_both_ways, require_directions
from lightsae.errors import LightsaeError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
# Of a cosine in float32: a direction is parallel to itself but for that.
_ROUNDING = 1e-6


class Stability(NamedTuple):
    """Stability of the latents of S dictionaries; see `latent_stability`.

    Attributes:
        thresholds: tau, T of them.
        shares: Of each dictionary [d_sae, T] float64, in steps of 1 / (S - 1); NaN of latents
            without a direction.
        similarity: Of each dictionary the largest similarity in each of the others, in their order,
            [d_sae, S - 1] float64; NaN where there is none.
    """

    thresholds: tuple[float, ...]
    shares: tuple[Tensor, ...]
    similarity: tuple[Tensor, ...]


class Cut(NamedTuple):
    """Where stable ends (ours): a latent is stable if its stability at a threshold is enough.

    Attributes:
        threshold: tau, one of those that are measured.
        share: Least stability.

    Example:
        >>> Cut().stable(torch.tensor([[1.0, 0.5], [1.0, 0.25]]), (0.5, 0.7))
        tensor([ True, False])
    """

    threshold: float = 0.7
    share: float = 0.5

    def stable(self, shares: Tensor, thresholds: Sequence[float]) -> Tensor:
        """Which latents are stable.

        Args:
            shares: Their stability, [d_sae, T]; NaN is not stable.
            thresholds: Of the columns.

        Returns:
            [d_sae] bool.

        Raises:
            LightsaeError: If the threshold is none of those.
        """
        if self.threshold not in thresholds:
            raise LightsaeError(
                f"cut.threshold = {self.threshold}, expected one of thresholds, "
                f"{', '.join(map(str, thresholds))}"
            )
        return shares[:, list(thresholds).index(self.threshold)] >= self.share


def latent_stability(
    decoders: Sequence[Tensor], thresholds: Sequence[float] = THRESHOLDS
) -> Stability:
    """Of each latent the share of other seeds that have a similar one.

    Stability is the probability that a similar latent is found again in an independently trained
    autoencoder (arXiv 2606.12138). Ours: `stab_i = mean over other seeds s of
    [max_j cos(d_i, d_j^s) >= tau]`, over decoder rows; signed, for a latent adds its direction and
    never subtracts it; a similarity within 1e-6 of tau reaches it.

    Args:
        decoders: W_dec of each seed, [d_sae, d_in]; d_sae may differ.
        thresholds: tau, each in [-1, 1].

    Raises:
        LightsaeError: If there are fewer than two, they differ in d_in, are not finite, or a
            threshold is no cosine.

    Example:
        >>> turned = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> latent_stability([torch.eye(2), turned], (0.5, 0.9)).shares[0]
        tensor([[1., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    if len(decoders) < 2:
        raise LightsaeError(f"decoders holds {len(decoders)}, expected two seeds or more")
    for place, each in enumerate(decoders):
        require_directions(**{f"decoders[{place}]": each})
    others = len(decoders) - 1
    similarity = [
        torch.full((len(each), others), torch.nan, dtype=torch.float64, device=each.device)
        for each in decoders
    ]
    for a, b in combinations(range(len(decoders)), 2):
        # Of the others of b, a < b is the a-th; of those of a, b is the one before its place.
        there, back = nearest_both_ways(decoders[a], decoders[b])
        similarity[a][:, b - 1], similarity[b][:, a] = there.similarity, back.similarity
    return stability_of(similarity, thresholds)


def stability_of(similarity: Sequence[Tensor], thresholds: Sequence[float]) -> Stability:
    """Stability from the largest similarities, whatever they are of.

    Args:
        similarity: Of each dictionary the largest in each of the others, [d_sae, S - 1]; NaN where
            there is none: of one other it counts as no match, of all the latent has no stability.
        thresholds: tau.

    Raises:
        LightsaeError: If a threshold is not in [-1, 1], or there is none.

    Example:
        >>> stability_of([torch.tensor([[0.9, 0.4]])], [0.5]).shares[0]
        tensor([[0.5000]], dtype=torch.float64)
    """
    taus = require_thresholds(thresholds)
    wide = tuple(each.double() for each in similarity)
    return Stability(taus, tuple(_shares(each, taus) for each in wide), wide)


def require_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Thresholds as floats.

    Raises:
        LightsaeError: If there is none, or one is not in [-1, 1].

    Example:
        >>> require_thresholds([1, 0.5])
        (1.0, 0.5)
    """
    taus = tuple(float(each) for each in thresholds)
    if not taus or not all(-1 <= tau <= 1 for tau in taus):
        raise LightsaeError(f"thresholds are {list(taus)}, expected some in [-1, 1]")
    return taus


def _shares(similarity: Tensor, thresholds: Sequence[float]) -> Tensor:
    found = [(similarity >= tau - _ROUNDING).double().mean(dim=1) for tau in thresholds]
    return torch.stack(found, dim=1).masked_fill_(
        similarity.isnan().all(dim=1, keepdim=True), torch.nan
    )
