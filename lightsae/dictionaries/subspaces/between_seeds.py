"""Spans of sets of latents compared between seeds, beside random and matched-rank ones."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.subspaces.intervals import defined_interval
from lightsae.dictionaries.subspaces.overlap import (
    overlap_of_bases,
    principal_angles,
    quantiles,
    random_overlap,
    subspace_overlap,
)
from lightsae.dictionaries.subspaces.span import effective_rank, participation_ratio, span
from lightsae.errors import LightsaeError
from lightsae.metrics.comparison.intervals import Interval

Baseline = Literal["random", "others", "data"]
# Mean over draws, and their 2.5% and 97.5% quantiles.
Spread = tuple[float, float, float]
# By baseline and pair of seeds, of each draw.
_Overlaps = dict[tuple[str, int, int], list[float]]


class PairOverlap(NamedTuple):
    """Overlap of the spans of two seeds, and what others of their ranks have.

    Attributes:
        seeds: Which two, by place.
        ranks: Dimensions of their spans.
        overlap: ||U_A^T U_B||_F^2 / r, r the smaller rank.
        expected: Of uniformly random subspaces: max(r_A, r_B) / d.
        random: Their 2.5% and 97.5% quantiles.
        angles: Principal angles in radians, ascending.
        others: Mean over draws of as many random latents of the other set, of each seed its own,
            and the quantiles; None where a seed has too few of them.
        data: Likewise of directions drawn from the covariance of the activations; None without it.
    """

    seeds: tuple[int, int]
    ranks: tuple[int, int]
    overlap: float
    expected: float
    random: tuple[float, float]
    angles: tuple[float, ...]
    others: Spread | None = None
    data: Spread | None = None

    def baseline(self, name: Baseline) -> float:
        """Mean overlap of a baseline; NaN where there is none."""
        if name == "random":
            return self.expected
        found = self.others if name == "others" else self.data
        return math.nan if found is None else found[0]


class SubspaceComparison(NamedTuple):
    """Spans of a set of latents of each seed; see `compare_spans`.

    Attributes:
        energy: Share of the directions that a span holds.
        counts: Latents in the set of each seed.
        ranks: Dimensions of each span.
        effective_ranks: Of each set; see `effective_rank`.
        participation_ratios: Of each set; see `participation_ratio`.
        pairs: Of each pair of seeds that both have a span.
    """

    energy: float
    counts: tuple[int, ...]
    ranks: tuple[int, ...]
    effective_ranks: tuple[float, ...]
    participation_ratios: tuple[float, ...]
    pairs: tuple[PairOverlap, ...]

    @property
    def overlap(self) -> Interval:
        """Of the spans, over pairs of seeds; pairs share seeds, so that it is rather narrow."""
        return defined_interval(pair.overlap for pair in self.pairs)

    def beyond(self, baseline: Baseline) -> Interval:
        """Overlap less the mean of a baseline, over the pairs that have it."""
        return defined_interval(pair.overlap - pair.baseline(baseline) for pair in self.pairs)


def compare_spans(
    groups: Sequence[Tensor],
    others: Sequence[Tensor] | None = None,
    covariance: Tensor | None = None,
    *,
    energy: float = 0.9,
    draws: int = 20,
    seed: int = 0,
) -> SubspaceComparison:
    """Whether sets of latents of several seeds span the same, such as the unstable ones.

    Found in arXiv 2606.12138: latents that are not found again may span a subspace that is. Ours:
    the spans hold `energy` of the directions, since more than d_in latents span everything;
    overlaps stand beside three baselines of the same ranks, each a way of being the same without
    being the same set. Uniformly random subspaces; the spans of as many random latents of the other
    set (the stable ones); and spans of as many directions drawn from the normal distribution with
    the covariance of the activations, which share what any directions that follow the data share.
    The latter two are cut to the ranks of the two spans.

    Args:
        groups: Directions of each seed's set, [m, d].
        others: Directions of each seed's other set, [n, d].
        covariance: Of the activations, [d, d].
        energy: Share in (0, 1]; see `span`.
        draws: Random subspaces of each kind.
        seed: Of them.

    Raises:
        LightsaeError: If there are fewer than two seeds, sizes do not fit together, or a setting is
            out of range.

    Example:
        >>> plane = torch.eye(8)[:2]
        >>> turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) @ plane
        >>> pair = compare_spans([plane, turned]).pairs[0]
        >>> round(pair.overlap, 6), pair.expected
        (1.0, 0.25)
    """
    return compare_each([(groups, others)], covariance, energy=energy, draws=draws, seed=seed)[0]


def compare_each(
    sets: Sequence[tuple[Sequence[Tensor], Sequence[Tensor] | None]],
    covariance: Tensor | None = None,
    *,
    energy: float = 0.9,
    draws: int = 20,
    seed: int = 0,
) -> list[SubspaceComparison]:
    """`compare_spans` of groups and others, several times, such as weighted and not.

    Args:
        sets: Groups and others of each comparison. What follows the covariance is drawn once for
            all, and so groups have to have the same numbers of latents every time.
        covariance: As of `compare_spans`, like what follows.
        energy: Likewise.
        draws: Likewise.
        seed: Likewise.
    """
    if draws < 2:
        raise LightsaeError(f"draws = {draws}, expected at least 2")
    for groups, others in sets:
        _require_seeds(groups, others)
    spans = [[span(group, energy) for group in groups] for groups, _ in sets]
    pairs = list(combinations(range(len(spans[0])), 2))
    overlaps: list[_Overlaps] = [
        {(kind, *pair): [] for kind in ("others", "data") for pair in pairs} for _ in sets
    ]
    counts = [len(group) for group in sets[0][0]]
    root = None if covariance is None else _root(covariance, spans[0][0].shape[1])
    of_data, of_others = (torch.Generator().manual_seed(seed + stream) for stream in (0, 1))
    for _ in range(draws):
        following = [] if root is None else [_following(root, n, of_data) for n in counts]
        for bases, (_, others), found in zip(spans, sets, overlaps, strict=True):
            ranks = [len(basis) for basis in bases]
            if root is not None:
                cut = [rows[:rank] for rows, rank in zip(following, ranks, strict=True)]
                _add(found, "data", cut)
            if others is not None:
                sizes = list(zip(counts, ranks, strict=True))
                _add(found, "others", _subsets(others, sizes, of_others))
    return [
        _comparison(groups, bases, found, energy, draws, seed)
        for (groups, _), bases, found in zip(sets, spans, overlaps, strict=True)
    ]


def _require_seeds(groups: Sequence[Tensor], others: Sequence[Tensor] | None) -> None:
    if len(groups) < 2:
        raise LightsaeError(f"groups holds {len(groups)}, expected two seeds or more")
    if others is not None and len(others) != len(groups):
        raise LightsaeError(f"others holds {len(others)}, expected one of {len(groups)} seeds each")
    widths = {each.shape[-1] for each in (*groups, *(others or ()))}
    if len(widths) > 1:
        told = ", ".join(map(str, sorted(widths)))
        raise LightsaeError(f"groups and others have d = {told}, expected one width")


def _add(found: _Overlaps, kind: str, bases: Sequence[Tensor]) -> None:
    """The overlaps of a draw, of the seeds that have one."""
    for a, b in combinations(range(len(bases)), 2):
        if len(bases[a]) and len(bases[b]):
            found[kind, a, b].append(overlap_of_bases(bases[a], bases[b]))


def _comparison(
    groups: Sequence[Tensor],
    spans: Sequence[Tensor],
    found: _Overlaps,
    energy: float,
    draws: int,
    seed: int,
) -> SubspaceComparison:
    pairs = []
    for a, b in combinations(range(len(spans)), 2):
        if len(spans[a]) and len(spans[b]):
            pair = _measured(spans[a], spans[b], (a, b), draws, seed)
            others, data = (_spread(found[kind, a, b]) for kind in ("others", "data"))
            pairs.append(pair._replace(others=others, data=data))
    return SubspaceComparison(
        energy,
        tuple(map(len, groups)),
        tuple(map(len, spans)),
        tuple(map(effective_rank, groups)),
        tuple(map(participation_ratio, groups)),
        tuple(pairs),
    )


def _measured(A: Tensor, B: Tensor, seeds: tuple[int, int], draws: int, seed: int) -> PairOverlap:
    chance = random_overlap(len(A), len(B), A.shape[1], draws=draws, seed=seed)
    return PairOverlap(
        seeds,
        (len(A), len(B)),
        subspace_overlap(A, B),
        chance.expected,
        (chance.low, chance.high),
        tuple(principal_angles(A, B).tolist()),
    )


def _subsets(
    others: Sequence[Tensor], sizes: Sequence[tuple[int, int]], generator: torch.Generator
) -> list[Tensor]:
    """Of each seed the span of as many latents of its other set, nothing where it has too few."""
    found = []
    for each, (count, rank) in zip(others, sizes, strict=True):
        chosen = torch.randperm(len(each), generator=generator)[:count]
        enough = rank if len(each) >= count else 0
        found.append(span(each[chosen.to(each.device)])[:enough])
    return found


def _following(root: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The span of so many directions that follow the data."""
    drawn = torch.randn(count, len(root), generator=generator) @ root
    return span(torch.nn.functional.normalize(drawn, dim=1))


def _spread(values: Sequence[float]) -> Spread | None:
    """Mean and quantiles of the overlaps of draws."""
    if not values:
        return None
    wide = torch.tensor(values, dtype=torch.float64)
    return float(wide.mean()), *quantiles(wide)


def _root(covariance: Tensor, d: int) -> Tensor:
    """R with R^T R the covariance, float32."""
    if list(covariance.shape) != [d, d] or not covariance.isfinite().all():
        raise LightsaeError(
            f"covariance is {list(covariance.shape)}, expected finite numbers [{d}, {d}]"
        )
    values, vectors = torch.linalg.eigh(covariance.detach().cpu().double())
    root: Tensor = (values.clamp_min(0).sqrt()[:, None] * vectors.T).float()
    return root
