"""Which latents of two dictionaries fire together: overlap and correlation from sparse codes."""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from lightsae.dictionaries.matching.checks import code_pair
from lightsae.dictionaries.matching.firings import Firings, add_products
from lightsae.dictionaries.matching.nearest import LargestSoFar, Nearest
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.sae.index_checks import integers, within
from lightsae.sae.sparse_code import SparseCode

# Pairs of latents whose sums are formed at once, 16 bytes each: what a processor's cache holds.
_PAIRS = 2**18
Measure = Literal["iou", "correlation"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Scores = Callable[[slice, Tensor, Tensor], Tensor]


class CoFiring:
    """How much latents of two dictionaries fire on the same rows, in one pass over their codes.

    With A_i the rows on which latent i of the one fires and a_i its activations over all rows,
    zeros included, B_j and b_j of the other:

        IoU_ij = |A_i & B_j| / |A_i or B_j|        correlation_ij = Pearson's r of a_i and b_j

    Values that are not positive do not fire. Sums are float64. The codes are kept, 4 bytes an index
    beside its value, until they take as much memory as the sums of all d_sae x d_other pairs would,
    16 bytes each: then they are added to such sums. Results form the sums of a block of latents at
    a time. No torchmetrics Metric: a sync would gather the codes of all ranks on each of them.

    Args:
        d_sae: Latents of the dictionary whose nearest ones are asked for.
        d_other: Latents of the other.
        device: Where sums are and codes are moved to.

    Example:
        >>> code = SparseCode(torch.ones(4, 1), torch.tensor([[0], [0], [1], [1]]), d_sae=2)
        >>> other = SparseCode(torch.ones(4, 1), torch.tensor([[2], [2], [2], [0]]), d_sae=3)
        >>> together = CoFiring(d_sae=2, d_other=3)
        >>> together.update(code, other)
        >>> together.nearest_iou()
        Nearest(similarity=tensor([0.6667, 0.5000], dtype=torch.float64), index=tensor([2, 0]))
        >>> together.correlation(torch.tensor([[0, 2]]))
        tensor([0.5774], dtype=torch.float64)
    """

    def __init__(self, d_sae: int, d_other: int, device: torch.device | str = "cpu") -> None:
        self.d_sae = size("d_sae", d_sae)
        self.d_other = size("d_other", d_other)
        self.rows = 0
        self.device = torch.device(device)
        self._mine, self._theirs = (Firings(d, device) for d in (self.d_sae, self.d_other))
        self._sums: tuple[Tensor, Tensor] | None = None

    def update(self, code: SparseCode, other: SparseCode) -> None:
        """Add rows.

        Args:
            code: Of the one dictionary [rows, k]; no latent twice in a row.
            other: Of the other, of the same rows; it may have another k.

        Raises:
            LightsaeError: If they are no codes of the same rows, are not of dictionaries of these
                sizes, or hold what is not finite.
        """
        mine, theirs = code_pair(code, other, self.d_sae, self.d_other)
        self._mine.add(*(each.to(self.device) for each in mine))
        self._theirs.add(*(each.to(self.device) for each in theirs))
        self.rows += len(code)
        if self._mine.kept_bytes + self._theirs.kept_bytes > 16 * self.d_sae * self.d_other:
            self._add_up()

    @property
    def firings(self) -> Tensor:
        """Rows on which each latent of the one dictionary fires [d_sae], int64."""
        return self._mine.count

    @property
    def other_firings(self) -> Tensor:
        """Rows on which each latent of the other fires [d_other], int64."""
        return self._theirs.count

    def nearest_iou(self) -> Nearest:
        """The latent of the other dictionary with the largest IoU, and that IoU, float64.

        A latent that never fires has none, and is nobody's; one that fires with no other has 0.
        """
        return self._nearest("iou")["iou"][0]

    def nearest_correlation(self) -> Nearest:
        """The latent of the other dictionary with the largest correlation, and that, float64.

        A latent whose activation is the same on every row, such as zero, has none and is nobody's.
        """
        return self._nearest("correlation")["correlation"][0]

    def nearest_both_ways(self) -> dict[Measure, tuple[Nearest, Nearest]]:
        """By IoU and by correlation the nearest of each latent of the one, and of the other.

        As `nearest_iou` and `nearest_correlation`, and those of `swapped()`: sums are formed once
        for all four.
        """
        return self._nearest(*MEASURES)

    def iou(self, pairs: Tensor) -> Tensor:
        """IoU of given pairs, such as those of a `Matching`; NaN where neither fires.

        Args:
            pairs: Latents of the one and of the other dictionary, integers [p, 2].

        Returns:
            Their IoU [p], float64.

        Raises:
            LightsaeError: If a latent is not in its dictionary.
        """
        return self._of_pairs(self._iou, pairs)

    def correlation(self, pairs: Tensor) -> Tensor:
        """Correlation of given pairs, NaN where one does not vary; as `iou`."""
        return self._of_pairs(self._correlation, pairs)

    def swapped(self) -> "CoFiring":
        """The same with the dictionaries exchanged; rows added later are not in it."""
        other = CoFiring(self.d_other, self.d_sae, self.device)
        other.rows = self.rows
        other._mine, other._theirs = self._theirs.copied(), self._mine.copied()
        if self._sums is not None:
            whole = torch.contiguous_format
            counts, products = (each.T.clone(memory_format=whole) for each in self._sums)
            other._sums = counts, products
        return other

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield latents, the rows on which they fire with each other one, and sums of products.

        Yields:
            Latents of the one dictionary; rows together [latents, d_other], int64; sum over rows of
            a_i b_j [latents, d_other], float64.
        """
        step = max(1, _PAIRS // self.d_other)
        entries, codes = self._mine.entries(), self._theirs.codes()
        for first in range(0, self.d_sae, step):
            latents = slice(first, min(first + step, self.d_sae))
            counts, products = self._sums_of(latents)
            add_products(entries, codes, latents, counts, products)
            yield latents, counts, products

    def _sums_of(self, latents: slice) -> tuple[Tensor, Tensor]:
        """A copy of what has been added up."""
        if self._sums is not None:
            return self._sums[0][latents].clone(), self._sums[1][latents].clone()
        return self._zeros(latents.stop - latents.start)

    def _zeros(self, n: int) -> tuple[Tensor, Tensor]:
        counts = torch.zeros(n, self.d_other, dtype=torch.int64, device=self.device)
        return counts, torch.zeros_like(counts, dtype=torch.float64)

    def _add_up(self) -> None:
        """Put the codes into the sums of all pairs."""
        self._sums = self._sums or self._zeros(self.d_sae)
        latents = slice(0, self.d_sae)
        add_products(self._mine.entries(), self._theirs.codes(), latents, *self._sums)
        for side in (self._mine, self._theirs):
            side.forget()

    def _iou(self, latents: slice, counts: Tensor, products: Tensor) -> Tensor:
        either = (self.firings[latents, None] + self.other_firings).double().sub_(counts)
        return torch.div(counts, either, out=either)

    def _correlation(self, latents: slice, counts: Tensor, products: Tensor) -> Tensor:
        mine, theirs = self._mine, self._theirs
        covariance = (self.rows * products).addr_(mine.total[latents], theirs.total, alpha=-1)
        spread = mine.spread(self.rows)[latents, None] * theirs.spread(self.rows)
        return covariance.div_(spread).clamp_(-1, 1)

    def _nearest(self, *measures: Measure) -> dict[Measure, tuple[Nearest, Nearest]]:
        """The largest scores of either side; latents that have none are nobody's."""
        sizes, everything = (self.d_sae, self.d_other), slice(0, self.d_other)
        found = {measure: [LargestSoFar(d, torch.float64, self.device) for d in sizes]
                 for measure in measures}  # fmt: skip
        without = {measure: self._without(measure) for measure in measures}
        for latents, *sums in self.blocks():
            for measure, (of_mine, of_theirs) in found.items():
                scores = (self._iou if measure == "iou" else self._correlation)(latents, *sums)
                mine, theirs = without[measure]
                scores[mine[latents]] = -torch.inf
                scores.index_fill_(1, theirs, -torch.inf)
                of_mine.put_rows(latents, everything, scores)
                of_theirs.put_columns(latents, everything, scores)
        return {measure: (mine.nearest(), theirs.nearest())
                for measure, (mine, theirs) in found.items()}  # fmt: skip

    def _without(self, measure: Measure) -> tuple[Tensor, Tensor]:
        """Latents that have no score: of the one dictionary a mask, of the other which."""
        mine, theirs = (
            side.count == 0 if measure == "iou" else ~side.varies(self.rows)
            for side in (self._mine, self._theirs)
        )
        return mine, theirs.nonzero()[:, 0]

    def _of_pairs(self, scores: Scores, pairs: Tensor) -> Tensor:
        mine, theirs = self._latents(pairs)
        found = torch.full(mine.shape, torch.nan, dtype=torch.float64, device=self.device)
        for latents, *sums in self.blocks():
            here = (mine >= latents.start) & (mine < latents.stop)
            found[here] = scores(latents, *sums)[mine[here] - latents.start, theirs[here]]
        return found

    def _latents(self, pairs: Tensor) -> list[Tensor]:
        """The latents of pairs on either side, checked."""
        require_tensors(pairs=pairs)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise LightsaeError(f"pairs has shape {list(pairs.shape)}, expected [pairs, 2]")
        columns = integers("pairs", pairs).to(self.device).unbind(dim=1)
        sizes = {"d_sae": self.d_sae, "d_other": self.d_other}
        return [
            within(f"pairs[:, {side}]", column, d, f"{name} = {d}")
            for side, (column, (name, d)) in enumerate(zip(columns, sizes.items(), strict=True))
        ]
