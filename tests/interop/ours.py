"""Autoencoders of ours whose every weight is away from where it starts."""

from typing import Any

import torch

from lightsae.sae import BatchTopK, GroupMax, JumpReLU, SparseAutoencoder, TopK, Transcoder

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
    _stir(sae)
    return sae


def our_transcoder(
    rule: str,
    normalization: Any = "variance",
    *,
    skip: bool = False,
    d_in: int = 8,
    d_out: int | None = None,
    d_sae: int = 32,
) -> Transcoder:
    """One with two scales, a centre and, with a skip, a map that none of them makes trivial."""
    torch.manual_seed(0)
    made = Transcoder(d_in, d_sae, RULES[rule](), normalization, d_out, skip)
    made.initialize_(rows(d_in, 200), targets=5 * rows(made.d_out, 150) - 1)
    if made.W_skip is not None:
        made.W_skip.data.normal_(std=d_in**-0.5)
    _stir(made)
    return made


@torch.no_grad()
def _stir(sae: SparseAutoencoder) -> None:
    for tensor, amount in ((sae.W_enc, 0.1), (sae.b_enc, 0.05), (sae.b_dec, 0.05)):
        tensor.add_(amount * torch.randn_like(tensor))
    if isinstance(sae.selection, (BatchTopK, JumpReLU)):
        a = sae.pre_activations(rows(sae.d_in, 200)).relu()
        sae.selection.threshold.copy_(a.quantile(0.9))
    if isinstance(sae.selection, JumpReLU):
        sae.selection.threshold.mul_(1 + 0.2 * torch.rand(sae.d_sae))
