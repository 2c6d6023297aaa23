"""A partner of its own for each latent: one-to-one matches of two dictionaries."""

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.matching.cosine import common_dtype, cosine_blocks, require_directions
from lightsae.extras import require

# Cosines up to which the best assignment is sought: 8192 x 8192, 512 MiB as float64.
_ASSIGNED = 2**26
# Candidates that are kept at once beyond that, 12 bytes each.
_CANDIDATES = 2**22


class Matching(NamedTuple):
    """Latents of two dictionaries in pairs, none of them twice.

    Attributes:
        pairs: Latent of the one dictionary, ascending, and of the other [p, 2], int64.
        similarity: Their cosines [p], float32 or float64.
    """

    pairs: Tensor
    similarity: Tensor


@torch.no_grad()
def match_one_to_one(W: Tensor, others: Tensor) -> Matching:
    """Pairs of latents of two dictionaries, each latent in one pair at most.

    Up to 2^26 cosines, such as 8192 x 8192, the pairs whose cosines have the largest sum: the
    assignment problem (Kuhn 1955), by `scipy.optimize.linear_sum_assignment`. Beyond, greedily:
    the largest cosine that is left, again and again, of equals the lowest latents of `W`, then of
    `others`; in blocks, so the n m cosines are never held at once. Every latent with a direction
    gets a partner while there are any, however far apart: take the pairs above a threshold. Rows of
    zeros are left out. `nearest_cosines` lets many have the same partner.

    Args:
        W: Directions, such as decoder rows [n, d].
        others: Directions of the other dictionary [m, d].

    Returns:
        The pairs, min(n, m) of them without rows of zeros; opposite directions are not similar.

    Raises:
        LightsaeError: If they are no such matrices, differ in width or are not finite.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> W = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> match_one_to_one(W, torch.tensor([[3.0, 4.0], [0.0, 5.0], [4.0, 3.0]]))
        Matching(pairs=tensor([[0, 2],
                [1, 1]]), similarity=tensor([0.8000, 1.0000]))
    """
    require_directions(W=W, others=others)
    rows, columns = (each.any(dim=1).nonzero()[:, 0] for each in (W, others))
    match = _assigned if len(rows) * len(columns) <= _ASSIGNED else _greedy
    found = match(_only(W, rows), _only(others, columns))
    order = found.pairs[:, 0].argsort()
    mine, theirs = found.pairs[order].unbind(dim=1)
    return Matching(torch.stack([rows[mine], columns[theirs]], dim=1), found.similarity[order])


def _only(W: Tensor, rows: Tensor) -> Tensor:
    return W if len(rows) == len(W) else W[rows]


def _assigned(W: Tensor, others: Tensor) -> Matching:
    """The pairs of the largest sum, from all cosines at once."""
    optimize = require("scipy.optimize", extra="evaluation")
    cosines = _all_cosines(W, others)
    found = optimize.linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    pairs = torch.stack([torch.from_numpy(each) for each in found], dim=1).to(W.device)
    return Matching(pairs, cosines[pairs[:, 0], pairs[:, 1]])


def _all_cosines(W: Tensor, others: Tensor) -> Tensor:
    cosines = torch.empty(len(W), len(others), dtype=common_dtype(W, others), device=W.device)
    for rows, columns, block in cosine_blocks(W, others):
        cosines[rows, columns] = block
    return cosines


def _greedy(W: Tensor, others: Tensor) -> Matching:
    """The largest cosine again and again, from the best candidates of every row.

    When a row has lost all of its candidates to others, every row that is left gets new ones: more
    of them each time, since fewer rows are left.
    """
    rows, columns = (torch.arange(len(each), device=W.device) for each in (W, others))
    pairs, similarities = [], []
    while len(rows) and len(columns):
        candidates = _best_of_rows(W, others)
        mine, theirs, similarity = _taken(*candidates, len(others))
        pairs.append(torch.stack([rows[mine], columns[theirs]], dim=1))
        similarities.append(similarity)
        left, free = (torch.ones_like(each, dtype=torch.bool) for each in (rows, columns))
        left[mine], free[theirs] = False, False
        rows, columns, W, others = rows[left], columns[free], W[left], others[free]
    return Matching(torch.cat(pairs), torch.cat(similarities))


def _best_of_rows(W: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosines of each row, descending, and their columns, ascending among equals."""
    count = min(len(others), max(1, _CANDIDATES // len(W)))
    best = torch.full((len(W), count), -torch.inf, dtype=common_dtype(W, others), device=W.device)
    index = torch.full((len(W), count), -1, device=W.device)
    for rows, columns, cosines in cosine_blocks(W, others):
        largest, place = _largest(cosines, min(count, cosines.shape[1]))
        seen = torch.cat([best[rows], largest], dim=1)
        places = torch.cat([index[rows], place + columns.start], dim=1)
        seen, order = seen.sort(dim=1, descending=True, stable=True)
        best[rows] = seen[:, :count]
        index[rows] = places.gather(1, order)[:, :count]
    return best, index


def _largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row, descending, and their places; equals in the order they stand in."""
    if count == scores.shape[1]:
        best = scores.sort(dim=1, descending=True, stable=True)
        return best.values, best.indices
    values, places = scores.topk(count + 1, dim=1)
    # Which of equals are taken is chance: it matters where the first that is left is one of them.
    tied = values[:, -2] == values[:, -1]
    places, order = places[:, :-1].sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    if tied.any():
        whole = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], places[tied] = whole.values[:, :count], whole.indices[:, :count]
    return values, places


def _taken(best: Tensor, index: Tensor, n_others: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns that take each other until a row runs out of candidates; their cosines."""
    values, columns = best.cpu().numpy(), index.cpu().numpy()
    count = values.shape[1]
    place, free = [0] * len(values), bytearray(b"\1") * n_others
    heap = [(-value, row) for row, value in enumerate(values[:, 0].tolist())]
    heapify(heap)
    pairs: list[tuple[int, int]] = []
    while heap:
        _, row = heappop(heap)
        at = place[row]
        if free[columns[row, at]]:
            free[columns[row, at]] = 0
            pairs.append((row, at))
            continue
        while at < count and not free[columns[row, at]]:
            at += 1
        if at == count:
            break
        place[row] = at
        heappush(heap, (-float(values[row, at]), row))
    rows, places = torch.tensor(pairs, device=best.device).unbind(dim=1)
    return rows, index[rows, places], best[rows, places]
