"""What a trained autoencoder is on one split: the figures of Table 1, and MS of every latent."""

from typing import NamedTuple

import torch
from replication.sets import Rows
from torch import Tensor

from lightsae.metrics import R2, monosemanticity
from lightsae.sae import SparseAutoencoder


class Score(NamedTuple):
    """Figures of one autoencoder on one split.

    Attributes:
        r2: 1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2 at the training k.
        r2_at_2k: The same with twice as many latents kept.
        ms: Monosemanticity of each latent, float64 [d_sae]; NaN where it has none.
        dead: Latents that never fire.
        undefined: Latents that fire without a pair of samples to compare.
    """

    r2: float
    r2_at_2k: float
    ms: Tensor
    dead: int
    undefined: int

    @property
    def mean_ms(self) -> float:
        """Mean MS over latents that have one."""
        return float(self.ms.nanmean())

    @property
    def mean_ms_with_zeros(self) -> float:
        """Mean MS with 0 for latents that have none."""
        return float(self.ms.nan_to_num(0.0).mean())


@torch.no_grad()
def score(sae: SparseAutoencoder, rows: Rows) -> Score:
    """Figures over a split that is held in memory."""
    k = sae.selection.k
    scores = monosemanticity(sae.encode(rows.x), rows.e)
    r2 = {at: r2_at(sae, rows.x, at) for at in (k, min(2 * k, sae.d_sae))}
    return Score(*r2.values(), scores.scores, scores.n_dead, scores.n_undefined)


def r2_at(sae: SparseAutoencoder, x: Tensor, k: int) -> float:
    """R2 of rows x with k latents kept."""
    metric = R2(sae.d_in)
    metric.update(x_hat=sae.decode(sae.encode(x, k=k)), x=x)
    return float(metric.compute())
