"""Feature splitting: one latent here, several there, each for a part of what it fires on."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.matching.checks import code_pair, firing, share
from lightsae.dictionaries.matching.cosine import nearest_cosines
from lightsae.dictionaries.matching.text_table import text_table
from lightsae.sae.sparse_code import SparseCode


class SplitPart(NamedTuple):
    """A latent of the other dictionary as part of one that splits.

    Attributes:
        latent: The latent that splits.
        part: The latent of the other dictionary.
        cosine: Of their directions.
        share: Share of the rows of the latent on which the part fires.
        within: Share of the rows of the part on which the latent fires.
    """

    latent: int
    part: int
    cosine: float
    share: float
    within: float


@dataclass(frozen=True, eq=False)
class Splits:
    """Which latents split; see `FeatureSplitting`.

    Attributes:
        splits: Whether each latent does [d_sae], bool.
        coverage: Share of its rows on which one of its candidates fires [d_sae], float64; NaN for
            a latent that never fires.
        parts: The candidates of those that split, ascending.
    """

    splits: Tensor
    coverage: Tensor
    parts: list[SplitPart]

    def table(self) -> str:
        """The parts as lines of text.

        Example:
            >>> part = SplitPart(3, 17, cosine=0.71, share=0.52, within=0.98)
            >>> print(Splits(torch.ones(1).bool(), torch.ones(1), [part]).table())
            latent  part  cosine  share  within
                 3    17    0.71   0.52    0.98
        """
        return text_table(SplitPart._fields, self.parts)


class FeatureSplitting:
    """Latents of one dictionary that are several in another one, larger or of another k.

    The candidates of latent i are the latents of the other dictionary whose most parallel direction
    is that of i, at a cosine of at least `threshold`, and that fire. It splits if there are two at
    least, if on a share of at least `coverage` of its rows one of them fires, and if none of them
    alone covers that share: a latent that the other dictionary has too has not split. Ours: feature
    splitting (Bricken et al. 2023, "Towards monosemanticity") is seen there by looking, and in
    arXiv 2409.14507 by probes for labels.

    One pass over codes of the same rows; sums are of integers.

    Args:
        W: Decoder of the one dictionary [d_sae, d_in].
        others: Decoder of the other [d_other, d_in].
        threshold: Cosine of candidates; of k orthogonal parts with their sum it is k^-1/2.
        coverage: Share of rows to be covered, in (0, 1].

    Raises:
        LightsaeError: If they are no such matrices, or no such shares.

    Example:
        >>> W, others = torch.tensor([[1.0, 1.0]]), torch.eye(2)
        >>> splitting = FeatureSplitting(W, others)
        >>> code = SparseCode(torch.ones(4, 1), torch.zeros(4, 1).long(), d_sae=1)
        >>> halves = SparseCode(torch.ones(4, 1), torch.tensor([[0], [1], [0], [1]]), d_sae=2)
        >>> splitting.update(code, halves)
        >>> print(splitting.compute().table())
        latent  part  cosine  share  within
             0     0    0.71   0.50    1.00
             0     1    0.71   0.50    1.00
    """

    def __init__(
        self, W: Tensor, others: Tensor, threshold: float = 0.5, coverage: float = 0.8
    ) -> None:
        self.threshold = share("threshold", threshold)
        self.coverage = share("coverage", coverage)
        self.cosine, nearest = nearest_cosines(others, W)
        self.owner = nearest.where(self.cosine >= threshold, -1)
        self.rows = torch.zeros(len(W), dtype=torch.int64, device=W.device)
        self.part_rows = torch.zeros_like(nearest)
        self._covered = self.rows.clone()
        self._shared = self.part_rows.clone()

    def update(self, code: SparseCode, other: SparseCode) -> None:
        """Add rows.

        Args:
            code: Of the one dictionary [rows, k]; no latent twice in a row.
            other: Of the other, of the same rows; it may have another k.

        Raises:
            LightsaeError: If they are no codes of the same rows and of these dictionaries.
        """
        d_sae, d_other = len(self.rows), len(self.owner)
        mine, theirs = code_pair(code, other, d_sae, d_other)
        (rows, latents), (other_rows, parts) = firing(mine), firing(theirs)
        wanted = other_rows * d_sae + self.owner[parts]
        shared = (self.owner[parts] >= 0) & torch.isin(wanted, rows * d_sae + latents)
        self.rows += torch.bincount(latents, minlength=d_sae)
        self.part_rows += torch.bincount(parts, minlength=d_other)
        self._shared += torch.bincount(parts[shared], minlength=d_other)
        self._covered += torch.bincount(wanted[shared].unique() % d_sae, minlength=d_sae)

    def compute(self) -> Splits:
        """What splits, and into which parts."""
        candidates = ((self.owner >= 0) & (self.part_rows > 0)).nonzero()[:, 0]
        owners = self.owner[candidates]
        order = owners.sort(stable=True).indices
        candidates, owners = candidates[order], owners[order]
        shares = self._shared[candidates].double() / self.rows[owners]
        coverage = self._covered.double() / self.rows
        largest = torch.zeros_like(coverage).scatter_reduce(0, owners, shares, "amax")
        several = torch.bincount(owners, minlength=len(self.rows)) >= 2
        splits = several & (coverage >= self.coverage) & (largest < self.coverage)
        within = self._shared[candidates].double() / self.part_rows[candidates]
        columns = owners, candidates, self.cosine[candidates], shares, within
        chosen = splits[owners]
        rows = zip(*(column[chosen].tolist() for column in columns), strict=True)
        return Splits(splits, coverage, [SplitPart(*row) for row in rows])
