"""Feature absorption: a general latent is silent where a special one fires in its place."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightsae.dictionaries.matching.checks import code_pair, share
from lightsae.dictionaries.matching.co_firing import CoFiring
from lightsae.dictionaries.matching.cosine import common_dtype
from lightsae.dictionaries.matching.one_to_one import match_one_to_one
from lightsae.dictionaries.matching.text_table import text_table
from lightsae.sae.sparse_code import SparseCode


class Absorber(NamedTuple):
    """A special latent that fires in place of a general one.

    Attributes:
        latent: The general latent.
        partner: Its partner in the other dictionary.
        absorber: The special latent, of the same dictionary as the general one.
        cosine: Of the directions of the two.
        within: Share of the rows of the special one on which the partner fires.
        silent: Share of the rows of both of these on which the general one does not fire.
        lost: Rows on which partner and special one fire and the general one does not, as a share
            of the rows of the partner.
    """

    latent: int
    partner: int
    absorber: int
    cosine: float
    within: float
    silent: float
    lost: float


@dataclass(frozen=True, eq=False)
class Absorption:
    """Which latents are absorbed by which; see `FeatureAbsorption`.

    Attributes:
        partner: Of each latent, in the other dictionary [d_sae], int64; -1 without one.
        holes: Share of the partner's rows on which the latent is silent [d_sae], float64; NaN
            without a partner that fires.
        absorbers: The pairs, ascending.
    """

    partner: Tensor
    holes: Tensor
    absorbers: list[Absorber]

    @property
    def rate(self) -> float:
        """Share of the latents with a partner that fires which another one absorbs; or NaN."""
        judged = int((~self.holes.isnan()).sum())
        absorbed = {absorber.latent for absorber in self.absorbers}
        return len(absorbed) / judged if judged else float("nan")

    def table(self) -> str:
        """The absorbers as lines of text.

        Example:
            >>> absorber = Absorber(3, 5, 17, cosine=0.4, within=1.0, silent=0.9, lost=0.1)
            >>> print(Absorption(torch.ones(1), torch.ones(1), [absorber]).table())
            latent  partner  absorber  cosine  within  silent  lost
                 3        5        17    0.40    1.00    0.90  0.10
        """
        return text_table(Absorber._fields, self.absorbers)


class FeatureAbsorption:
    """General latents of a dictionary that are silent where a special one fires in their place.

    Chanin et al. (arXiv 2409.14507): where a feature is present, as labels and a probe say, its
    main latents are silent, and another latent whose direction contains the feature's makes up for
    it. Here without labels, and therefore ours: that the feature of latent i is present is what its
    partner p in the other dictionary says, matched one to one at a cosine of at least `threshold`.
    With A the rows on which a latent fires, latent j of the dictionary of i absorbs i if

        cos(w_i, w_j) >= cosine            the direction of j contains that of i
        |A_j & A_p| / |A_j| >= within      j is special: it fires where the feature is
        |A_j| < |A_p|
        |A_j & A_p - A_i| / |A_j & A_p| >= silent      and there i mostly does not fire

    A part of a latent that split is not absorbed by the other parts: their directions are not in
    each other. What the partner misses too is not seen. One pass over codes of the same rows.

    Args:
        W: Decoder of the dictionary that is looked at [d_sae, d_in].
        others: Decoder of the other [d_other, d_in].
        threshold: Cosine of partners.
        cosine: Of the directions of the two latents. In d_in dimensions, that of random directions
            has a standard deviation of d_in^-1/2: stay well above.
        within: Share of the rows of the special latent.
        silent: Share of the rows of special latent and partner.

    Raises:
        LightsaeError: If they are no such matrices, or no such shares.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> absorbing = torch.tensor([[1.0, 0.0], [0.7, 0.7]])  # the second contains the first
        >>> absorption = FeatureAbsorption(absorbing, torch.eye(2), cosine=0.5)
        >>> code = SparseCode(torch.ones(4, 1), torch.tensor([[0], [0], [0], [1]]), d_sae=2)
        >>> other = SparseCode(torch.ones(4, 1), torch.zeros(4, 1).long(), d_sae=2)
        >>> absorption.update(code, other)
        >>> print(absorption.compute().table())
        latent  partner  absorber  cosine  within  silent  lost
             0        0         1    0.71    1.00    1.00  0.25
    """

    def __init__(
        self,
        W: Tensor,
        others: Tensor,
        threshold: float = 0.7,
        cosine: float = 0.3,
        within: float = 0.9,
        silent: float = 0.5,
    ) -> None:
        self.threshold, self.cosine = share("threshold", threshold), share("cosine", cosine)
        self.within, self.silent = share("within", within), share("silent", silent)
        pairs, similarity = match_one_to_one(W, others)
        mine, theirs = pairs[similarity >= threshold].unbind(dim=1)
        self.partner = torch.full((len(W),), -1, device=W.device).index_put((mine,), theirs)
        self._owner = torch.full((len(others),), -1, device=W.device).index_put((theirs,), mine)
        self._unit = normalize(W.detach().to(common_dtype(W, others)), dim=1)
        self._present = CoFiring(len(W), len(W), W.device)
        self._holes = CoFiring(len(W), len(W), W.device)

    def update(self, code: SparseCode, other: SparseCode) -> None:
        """Add rows.

        Args:
            code: Of the dictionary that is looked at [rows, k]; no latent twice in a row.
            other: Of the other, of the same rows; it may have another k.

        Raises:
            LightsaeError: If they are no codes of the same rows and of these dictionaries.
        """
        d_sae = len(self.partner)
        (values, indices), theirs = code_pair(code, other, d_sae, len(self._owner))
        owners = self._owner[theirs[1]]
        present = (theirs[0] > 0) & (owners >= 0)
        rows = torch.arange(len(values), device=values.device)[:, None] * d_sae
        fired = (rows + indices)[values > 0]
        hole = present & ~torch.isin(rows + owners, fired)
        owners = owners.clamp(min=0)
        mine = SparseCode(values, indices, d_sae)
        self._present.update(SparseCode(present.to(values.dtype), owners, d_sae), mine)
        self._holes.update(SparseCode(hole.to(values.dtype), owners, d_sae), mine)

    def compute(self) -> Absorption:
        """What is absorbed, and by which latents."""
        present, holes = self._present.firings, self._holes.firings
        judged = present > 0
        found: list[Absorber] = []
        for (latents, both, _), (_, lost, _) in zip(
            self._present.blocks(), self._holes.blocks(), strict=True
        ):
            found += self._absorbers(latents, both, lost)
        return Absorption(self.partner, (holes / present.double()).where(judged, torch.nan), found)

    def _absorbers(self, latents: slice, both: Tensor, lost: Tensor) -> list[Absorber]:
        """Those of a block of general latents."""
        present, fires = self._present.firings[latents, None], self._present.other_firings
        cosines = self._unit[latents] @ self._unit.T
        within, silent = both.double() / fires, lost.double() / both
        absorbs = (cosines >= self.cosine) & (within >= self.within) & (silent >= self.silent)
        absorbs &= fires < present
        own = torch.arange(latents.start, latents.stop, device=both.device)
        absorbs[own - latents.start, own] = False
        rows, absorbers = absorbs.nonzero(as_tuple=True)
        general = rows + latents.start
        places = rows, absorbers
        columns = (
            general, self.partner[general], absorbers, cosines[places], within[places],
            silent[places], lost[places].double() / present[rows, 0],
        )  # fmt: skip
        return [Absorber(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
