"""`LatentRanking`: latents from the most telling down, as steering takes them."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.finding.contrast import Contrast
from lightsae.interventions.finding.labelled_rows import checked_codes
from lightsae.interventions.finding.probe import Probe

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class LatentRanking(NamedTuple):
    """Latents with a score that is not 0, best first.

    Attributes:
        latents: [m] int64.
        signs: 1 where more of the latent goes with label 1, -1 where less does, [m] float32.
        mean_active: Mean of its activations where it fires, [m] float32.
    """

    latents: Tensor
    signs: Tensor
    mean_active: Tensor


def ranking_of_probe(probe: Probe, codes: "csr_array | Array | Tensor") -> LatentRanking:
    """Latents by |coef| of a probe.

    Args:
        probe: Fitted on codes.
        codes: The codes that it was fitted on, [n, d_sae] floats.

    Raises:
        LightsaeError: If the codes have another width.

    Example:
        >>> codes = np.array([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
        >>> probe = Probe(np.ones(2), np.ones(2), coef=np.array([0.5, -2.0]), converged=True)
        >>> ranking_of_probe(probe, codes).latents, ranking_of_probe(probe, codes).mean_active
        (tensor([1, 0]), tensor([1.5000, 3.0000]))
    """
    return _ranking(probe.ranking, probe.coef, codes)


def ranking_of_contrast(contrast: Contrast, codes: "csr_array | Array | Tensor") -> LatentRanking:
    """Latents by |effect| of a contrast.

    Args:
        contrast: Of codes.
        codes: The codes, [n, d_sae] floats.

    Raises:
        LightsaeError: If the codes have another width.
    """
    return _ranking(contrast.ranking, contrast.effect, codes)


def _ranking(order: Array, scores: Array, codes: "csr_array | Array | Tensor") -> LatentRanking:
    rows = checked_codes(codes)
    if rows.shape[1] != len(scores):
        raise LightsaeError(f"codes has width {rows.shape[1]}, expected d_sae = {len(scores)}")
    kept = order[scores[order] != 0]
    firings = np.bincount(rows.indices, minlength=len(scores))
    sums = np.bincount(rows.indices, weights=rows.data, minlength=len(scores))
    mean = sums / np.maximum(firings, 1)
    return LatentRanking(
        torch.from_numpy(kept.astype(np.int64)),
        torch.from_numpy(np.sign(scores[kept])).float(),
        torch.from_numpy(mean[kept]).float(),
    )
