"""Who projects the decoder's gradient and keeps its rows at unit norm: the module or `SAEAdam`."""

from typing import NamedTuple

import torch
from torch.optim import Optimizer

from lightsae.sae import SparseAutoencoder
from lightsae.training.optimizer import SAEAdam


class DecoderUpkeep(NamedTuple):
    """What is left to the module around a step.

    Attributes:
        projects: It projects the gradient before the step.
        normalizes: It brings rows back to unit norm after the step.
    """

    projects: bool = True
    normalizes: bool = True


def leave_decoder_to(
    optimizer: Optimizer, sae: SparseAutoencoder, clipped: bool, mixed: torch.dtype | None
) -> DecoderUpkeep:
    """Leave to an `SAEAdam` what it does in its own pass, narrow copies of the weights included.

    Args:
        optimizer: Any.
        sae: The autoencoder whose parameters it steps, all or some of them.
        clipped: Gradients are clipped; what is clipped is projected before, by the module.
        mixed: Dtype of autocast, or None.

    Returns:
        What is left to the module.

    Example:
        >>> sae = SparseAutoencoder(d_in=4, d_sae=32)
        >>> leave_decoder_to(torch.optim.Adam(sae.parameters()), sae, clipped=False, mixed=None)
        DecoderUpkeep(projects=True, normalizes=True)
        >>> leave_decoder_to(SAEAdam(sae.parameters(), lr=1e-3), sae, clipped=True, mixed=None)
        DecoderUpkeep(projects=True, normalizes=False)
    """
    stepped = [p for group in optimizer.param_groups for p in group["params"]]
    trained = {id(parameter) for parameter in stepped if parameter.requires_grad}
    decoder, ours = id(sae.W_dec) in trained, isinstance(optimizer, SAEAdam)
    left = DecoderUpkeep(
        projects=decoder and (clipped or not ours), normalizes=decoder and not ours
    )
    if not isinstance(optimizer, SAEAdam):
        return left
    if decoder:
        optimizer.keep_unit_rows(sae.W_dec, project=not clipped)
    if mixed is not None and id(sae.W_enc) in trained:
        optimizer.keep_copy(sae.W_enc, sae.keep_narrow("W_enc", mixed))
    if mixed is not None and decoder and sae.W_dec.is_cuda:
        # The CPU gathers rows of float32.
        optimizer.keep_copy(sae.W_dec, sae.keep_narrow("W_dec", mixed))
    return left
