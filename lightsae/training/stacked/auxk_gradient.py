"""AuxK of one member and its gradients, as `lightsae.sae.aux_k_loss` defines it."""

from typing import NamedTuple

import torch
from lightsae_kernels.cpu.select import select_topk
from torch import Tensor

from lightsae.sae import AuxK
from lightsae.sae.losses.auxk import global_variance


class Encodings(NamedTuple):
    """What AuxK takes of a member: W_enc and W_dec [N, D], b_enc [N]."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor


def add_aux_k(
    member: Encodings,
    centred: Tensor,
    residual: Tensor,
    dead: Tensor,
    settings: AuxK,
    gradients: dict[str, Tensor],
    scale: float,
) -> Tensor:
    """Value of AuxK; its gradients are added to those of the member.

    Args:
        member: Its parameters.
        centred: x - b_dec, [B, D].
        residual: What the code leaves, a constant, [B, D].
        dead: Dead latents, their numbers, at least one.
        settings: Weight and number of latents per row.
        gradients: Of W_enc, b_enc, W_dec and b_dec.
        scale: Factor of the gradients.
    """
    variance = global_variance(residual, None)
    if not variance > 0:
        return residual.new_zeros(())
    W_enc, b_enc, W_dec = member.W_enc[dead], member.b_enc[dead], member.W_dec[dead]
    z = torch.addmm(b_enc, centred, W_enc.t())
    if len(dead) <= settings.k_aux:
        z = z.relu_()
    else:
        values, indices = select_topk(z, settings.k_aux)
        z = torch.zeros_like(z).scatter_(1, indices, values)
    left = torch.addmm(residual, z, W_dec, beta=-1)
    variance = variance.clamp_min(1e-30)
    value = left.square().sum() / len(left) / variance
    left *= 2 * scale * settings.weight / len(left) / variance
    d_z = left.mm(W_dec.t()).mul_(z > 0)
    d_b_enc = d_z.sum(dim=0)
    gradients["W_dec"].index_add_(0, dead, z.t().mm(left))
    gradients["W_enc"].index_add_(0, dead, d_z.t().mm(centred))
    gradients["b_enc"].index_add_(0, dead, d_b_enc)
    gradients["b_dec"] -= d_b_enc @ W_enc
    return value
