"""Autoencoders of ours whose every weight is away from where it starts."""

from typing import Any

import torch

from lightsae.sae import BatchTopK, GroupMax, JumpReLU, SparseAutoencoder, TopK

from .helpers import rows

RULES = {
    "TopK": lambda: TopK(4),
    "BatchTopK": lambda: BatchTopK(4),
    "JumpReLU": lambda: JumpReLU(4),
    "GroupMax": lambda: GroupMax(4),
}


def ours(
    rule: str, normalization: Any = "variance", *, d_in: int = 8, d_sae: int = 32
) -> SparseAutoencoder:
    """One with a scale, biases and thresholds that none of them makes trivial."""
    torch.manual_seed(0)
    sae = SparseAutoencoder(d_in, d_sae, RULES[rule](), normalization)
    sae.initialize_(rows(d_in, 200))
    with torch.no_grad():
        sae.W_enc.add_(0.1 * torch.randn_like(sae.W_enc))
        sae.b_enc.add_(0.05 * torch.randn_like(sae.b_enc))
        sae.b_dec.add_(0.05 * torch.randn_like(sae.b_dec))
        if isinstance(sae.selection, (BatchTopK, JumpReLU)):
            a = sae.pre_activations(rows(d_in, 200)).relu()
            sae.selection.threshold.copy_(a.quantile(0.9))
        if isinstance(sae.selection, JumpReLU):
            sae.selection.threshold.mul_(1 + 0.2 * torch.rand(d_sae))
    return sae
