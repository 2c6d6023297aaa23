"""What a trained autoencoder is on one split: the figures of Table 1, and MS of every latent."""

from typing import NamedTuple

import torch
from replication.sets import Rows
from torch import Tensor

from lightsae.metrics import R2, monosemanticity
from lightsae.sae import SparseAutoencoder, SparseCode


class Score(NamedTuple):
    """Figures of one autoencoder on one split.

    Attributes:
        r2: 1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2, the rule applied as to new inputs.
        r2_at_2k: The same with the 2k largest of each row kept, whatever the rule.
        ms: Monosemanticity of each latent, float64 [d_sae]; NaN where it has none.
        dead: Latents that never fire.
        undefined: Latents that fire without a pair of samples to compare.
        l0: Active latents of a row, a mean.
    """

    r2: float
    r2_at_2k: float
    ms: Tensor
    dead: int
    undefined: int
    l0: float

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
    code = sae.encode(rows.x)
    wider = sae.encode(rows.x, k=min(2 * sae.selection.k, sae.d_sae))
    scores = monosemanticity(code, rows.e)
    return Score(
        r2_of(sae, code, rows.x), r2_of(sae, wider, rows.x), scores.scores, scores.n_dead,
        scores.n_undefined, float(code.l0().double().mean()),
    )  # fmt: skip


def r2_of(sae: SparseAutoencoder, code: SparseCode, x: Tensor) -> float:
    """R2 of rows x by their code."""
    metric = R2(sae.d_in)
    metric.update(x_hat=sae.decode(code), x=x)
    return float(metric.compute())
