"""Stability against frequency, and what else differs between stable and unstable latents."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.subspaces.intervals import defined_interval
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors
from lightsae.metrics.comparison.intervals import Interval

_BINS_PER_DECADE = 4


class StabilityCurve(NamedTuple):
    """Mean stability of the latents that fire about equally often.

    Attributes:
        low: Lower edge of each bin, a share of rows; from the rarest latent to the most frequent.
        high: Upper edge; it belongs to the next bin.
        latents: In each bin, over all seeds.
        stability: Mean over them, of each threshold one list; NaN in an empty bin.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    latents: tuple[int, ...]
    stability: tuple[tuple[float, ...], ...]


class SetDifference(NamedTuple):
    """A column's mean over stable and over unstable latents, in an interval over seeds.

    Attributes:
        stable: Mean over the stable latents that fire and have a value.
        unstable: Over the others.
        difference: Stable less unstable, seed by seed.
    """

    stable: Interval
    unstable: Interval
    difference: Interval


def stability_curve(frequency: Tensor, shares: Tensor) -> StabilityCurve:
    """Stability against frequency, in bins of a quarter of a decade.

    Args:
        frequency: Share of rows on which each latent fires, [n]; those of 0 are in no bin.
        shares: Stability at each threshold, [n, T].

    Raises:
        LightsaeError: If they are not of the same latents, or a frequency is above 1.

    Example:
        >>> curve = stability_curve(torch.tensor([0.02, 0.9, 0.0]), torch.tensor([[0.5], [1], [0]]))
        >>> [round(each, 3) for each in curve.low], curve.latents
        ([0.018, 0.032, 0.056, 0.1, 0.178, 0.316, 0.562], (1, 0, 0, 0, 0, 0, 1))
        >>> curve.stability[0][0], curve.stability[0][-1]
        (0.5, 1.0)
    """
    require_tensors(frequency=frequency, shares=shares)
    if frequency.ndim != 1 or shares.ndim != 2 or len(shares) != len(frequency):
        raise LightsaeError(
            f"frequency and shares are {list(frequency.shape)} and {list(shares.shape)}, expected "
            "[n] and [n, T]"
        )
    if (frequency > 1).any():
        raise LightsaeError("frequency has values above 1, expected shares of rows")
    fired = frequency > 0
    places = (frequency[fired].double().log10() * _BINS_PER_DECADE).floor().long().clamp_max(-1)
    if len(places) == 0:
        return StabilityCurve((), (), (), tuple(() for _ in range(shares.shape[1])))
    first, last = int(places.min()), int(places.max())
    latents = torch.bincount(places - first, minlength=last - first + 1)
    sums = torch.zeros(len(latents), shares.shape[1], dtype=torch.float64, device=shares.device)
    sums.index_add_(0, places - first, shares[fired].double())
    edges = [10 ** (place / _BINS_PER_DECADE) for place in range(first, last + 2)]
    means = (sums / latents[:, None]).T.tolist()
    return StabilityCurve(
        tuple(edges[:-1]), tuple(edges[1:]), tuple(latents.tolist()), tuple(map(tuple, means))
    )


def set_difference(
    columns: Sequence[Tensor], stable: Sequence[Tensor], alive: Sequence[Tensor]
) -> SetDifference:
    """A column of each seed, compared between its stable and its unstable latents.

    Args:
        columns: Values, [d_sae]; NaN where a latent has none.
        stable: Which are stable, [d_sae] bool.
        alive: Which fire, [d_sae] bool; the others are left out.

    Example:
        >>> column, fires = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([True, True, False])
        >>> stable = torch.tensor([True, False, False])
        >>> found = set_difference([column] * 2, [stable] * 2, [fires] * 2)
        >>> round(found.stable.mean, 6), round(found.difference.mean, 6)
        (0.9, 0.4)
    """
    means = [
        [_mean(values[each & fires]) for each in (one, ~one)]
        for values, one, fires in zip(columns, stable, alive, strict=True)
    ]
    return SetDifference(
        defined_interval(mine for mine, _ in means),
        defined_interval(others for _, others in means),
        defined_interval(mine - others for mine, others in means),
    )


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean()) if len(values) else math.nan
