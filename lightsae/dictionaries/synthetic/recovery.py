"""Which of the true features a dictionary has found: as latents, or only as a subspace."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.matching.cosine import nearest_cosines
from lightsae.dictionaries.synthetic.features import SyntheticFeatures
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors

# Share of a direction's squared length that has to lie in a group for it to be one of the group's.
_MEMBER = 0.5


class Recovery(NamedTuple):
    """What a dictionary has found of a truth; see `recovery`.

    Attributes:
        threshold: Least cosine, and least overlap.
        isolated: Of each isolated feature the largest cosine of a latent with it, [isolated]
            float64; NaN if the dictionary has no latent.
        members: Likewise of the directions that stand for latents of a group, [groups, members].
        overlap: Of each group the share of its subspace that its latents span, [groups] float64.
        latents: Of each group how many latents lie in it, [groups] int64.
    """

    threshold: float
    isolated: Tensor
    members: Tensor
    overlap: Tensor
    latents: Tensor

    @property
    def isolated_share(self) -> float:
        """Share of the isolated features that are recovered at the latent level."""
        return float((self.isolated >= self.threshold).double().mean())

    @property
    def member_share(self) -> float:
        """Share of the groups' directions that are recovered at the latent level."""
        return float((self.members >= self.threshold).double().mean())

    @property
    def subspace_share(self) -> float:
        """Share of the groups that are recovered at the subspace level."""
        return float((self.overlap >= self.threshold).double().mean())


def recovery(W_dec: Tensor, truth: SyntheticFeatures, threshold: float = 0.9) -> Recovery:
    """Tell which true features a dictionary has found.

    Ours. At the latent level: some latent has a cosine of at least the threshold with the feature.
    At the subspace level: `||U_A U^T||_F^2 / rank` is at least the threshold, U the group's basis
    and U_A the first `rank` principal directions of the latents that lie in the group, those with
    at least half of their squared length in it. Too few latents to span it count against it.

    Args:
        W_dec: Directions of the latents, [d_sae, d_in]; leave out those that never fire.
        truth: The features.
        threshold: Of cosine and overlap.

    Raises:
        LightsaeError: If widths differ, W_dec is not finite or threshold is no such share.

    Example:
        >>> from lightsae.dictionaries import synthetic_features
        >>> truth = synthetic_features(24, isolated=4, groups=1, group_rank=8, active=1.0)
        >>> found = recovery(torch.cat([truth.directions[:3], truth.bases[0]]), truth)
        >>> found.isolated_share, found.member_share, found.subspace_share
        (0.75, 0.0, 1.0)
    """
    d_in = truth.directions.shape[1]
    require_tensors(W_dec=W_dec)
    if not 0 < threshold <= 1:
        raise LightsaeError(f"threshold = {threshold}, expected above 0 and at most 1")
    if W_dec.ndim != 2 or W_dec.shape[1] != d_in:
        raise LightsaeError(f"W_dec is {list(W_dec.shape)}, expected [d_sae, d_in = {d_in}]")
    rows = torch.nn.functional.normalize(W_dec.detach().cpu().double(), dim=1)
    bases = truth.bases.double()
    overlaps, latents = [], []
    for basis in bases:
        inside = rows[(rows @ basis.T).square().sum(dim=1) >= _MEMBER]
        principal = torch.linalg.svd(inside, full_matrices=False).Vh[: len(basis)]
        overlaps.append((principal @ basis.T).square().sum() / len(basis))
        latents.append(len(inside))
    members = nearest_cosines(truth.members.flatten(0, 1).double(), rows).similarity
    return Recovery(
        threshold,
        nearest_cosines(truth.directions.double(), rows).similarity,
        members.reshape(truth.members.shape[:2]),
        torch.stack(overlaps) if overlaps else bases.new_zeros(0),
        torch.tensor(latents, dtype=torch.int64),
    )
