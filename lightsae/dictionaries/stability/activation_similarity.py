"""Similarity of latents over the data: do they fire on the same rows, and alike."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from lightsae.dictionaries.matching.co_firing import MEASURES, CoFiring
from lightsae.sae import SparseCode


class ActivationSimilarity:
    """Largest similarity of each latent in every other dictionary, over codes of the same rows.

    Args:
        sizes: d_sae of each dictionary, two or more.
        seed: Of the order in which rows are shuffled.

    Example:
        >>> code = SparseCode(torch.ones(4, 1), torch.tensor([[0], [0], [1], [1]]), d_sae=2)
        >>> together = ActivationSimilarity([2, 2])
        >>> together.update([code, code])
        >>> together.compute()["iou"][0].tolist()
        [[1.0], [1.0]]
    """

    def __init__(self, sizes: Sequence[int], seed: int = 0) -> None:
        self._sizes = sizes
        self._pairs = {
            (a, b): CoFiring(sizes[a], sizes[b]) for a, b in combinations(range(len(sizes)), 2)
        }
        self._by_chance = CoFiring(sizes[0], sizes[1])
        self._generator = torch.Generator().manual_seed(seed)

    def update(self, codes: Sequence[SparseCode]) -> None:
        """Add a batch: the code of each dictionary."""
        for (a, b), pair in self._pairs.items():
            pair.update(codes[a], codes[b])
        order = torch.randperm(len(codes[1]), generator=self._generator)
        self._by_chance.update(codes[0], _reordered(codes[1], order))

    def compute(self) -> dict[str, list[Tensor]]:
        """Of each measure and dictionary the largest in each of the others, [d_sae, S - 1]."""
        seeds = len(self._sizes)
        blank = [torch.full((d_sae, seeds - 1), torch.nan).double() for d_sae in self._sizes]
        found: dict[str, list[Tensor]] = {
            measure: [each.clone() for each in blank] for measure in MEASURES
        }
        for (a, b), pair in self._pairs.items():
            for measure, (there, back) in pair.nearest_both_ways().items():
                # Of the others of b, a < b is the a-th; of those of a, b is the one before its
                # place.
                found[measure][a][:, b - 1] = there.similarity
                found[measure][b][:, a] = back.similarity
        return found

    def by_chance(self) -> dict[str, list[Tensor]]:
        """Of the first two dictionaries, with rows of either shuffled within batches, [d_sae, 1].

        Latents then fire as often as they do, in rows that have nothing to do with each other.
        """
        return {
            measure: [side.similarity[:, None] for side in sides]
            for measure, sides in self._by_chance.nearest_both_ways().items()
        }


def _reordered(code: SparseCode, order: Tensor) -> SparseCode:
    order = order.to(code.values.device)
    return SparseCode(code.values[order], code.indices[order], code.d_sae)
