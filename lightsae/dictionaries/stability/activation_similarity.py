"""Similarity of latents over the data: do they fire on the same rows, and alike."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from lightsae.dictionaries.matching.co_firing import CoFiring
from lightsae.sae import SparseCode

MEASURES = ("iou", "correlation")


class ActivationSimilarity:
    """Largest similarity of each latent in every other dictionary, over codes of the same rows.

    Args:
        sizes: d_sae of each dictionary.

    Example:
        >>> code = SparseCode(torch.ones(4, 1), torch.tensor([[0], [0], [1], [1]]), d_sae=2)
        >>> together = ActivationSimilarity([2, 2])
        >>> together.update([code, code])
        >>> together.compute()["iou"][0].tolist()
        [[1.0], [1.0]]
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._pairs = {
            (a, b): CoFiring(sizes[a], sizes[b]) for a, b in combinations(range(len(sizes)), 2)
        }

    def update(self, codes: Sequence[SparseCode]) -> None:
        """Add a batch: the code of each dictionary."""
        for (a, b), pair in self._pairs.items():
            pair.update(codes[a], codes[b])

    def compute(self) -> dict[str, list[Tensor]]:
        """Of each measure and dictionary the largest in each of the others, [d_sae, S - 1]."""
        seeds = len(self._sizes)
        found = {measure: [torch.full((d_sae, seeds - 1), torch.nan, dtype=torch.float64)
                           for d_sae in self._sizes] for measure in MEASURES}  # fmt: skip
        for (a, b), pair in self._pairs.items():
            # Of the others of b, a < b is the a-th; of those of a, b is the one before its place.
            for one, column, sums in ((a, b - 1, pair), (b, a, pair.swapped())):
                found["iou"][one][:, column] = sums.nearest_iou().similarity
                found["correlation"][one][:, column] = sums.nearest_correlation().similarity
        return found
