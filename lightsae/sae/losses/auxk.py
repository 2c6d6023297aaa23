"""AuxK loss: dead latents reconstruct the residual (arXiv 2406.04093)."""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from lightsae_kernels import PairOrder, encode_topk, reference, sparse_decode
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.autoencoder import SparseAutoencoder


@dataclass(frozen=True)
class AuxK:
    """Settings of the auxiliary loss.

    Attributes:
        weight: alpha, the factor of AuxK in the loss.
        k_aux: Dead latents used per row, at most.
        dead_after: Tokens without firing after which a latent is dead; None to go by the multiple.
        fired_above: Activation above which a latent has fired.
        dead_after_multiple: `dead_after` where it is None, in units of d_sae / k: of the tokens
            between two firings of a latent if all fired equally often.

    Raises:
        LightsaeError: If a count is smaller than 1, weight or fired_above negative or infinite, or
            the multiple not positive.

    Example:
        >>> AuxK().dead_after_rows(d_sae=512, k=8)
        5120
    """

    weight: float = 1 / 32
    k_aux: int = 256
    dead_after: int | None = None
    fired_above: float = 1e-3
    dead_after_multiple: float = 80.0

    def __post_init__(self) -> None:
        for name in ("k_aux", "dead_after"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise LightsaeError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("weight", "fired_above"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LightsaeError(
                    f"{name} must be at least 0 and finite, got {getattr(self, name)}"
                )
        if not 0 < self.dead_after_multiple < math.inf:
            raise LightsaeError(
                f"dead_after_multiple must be positive and finite, got {self.dead_after_multiple}"
            )

    def dead_after_rows(self, d_sae: int, k: int) -> int:
        """Tokens without firing after which a latent is dead, for a dictionary and its k."""
        if self.dead_after is not None:
            return self.dead_after
        return max(1, round(self.dead_after_multiple * d_sae / k))


def aux_k_loss(
    sae: SparseAutoencoder,
    x: Tensor,
    residual: Tensor,
    dead: Tensor,
    k_aux: int,
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Share of the residual's variance that the best dead latents fail to explain.

        L = mean_i ||e_i - e_hat_i||^2 / mean_i ||e_i - mean(e)||^2,  e_hat = z_aux W_dec

    Args:
        sae: The autoencoder; the loss reaches W_enc, b_enc, b_dec and W_dec of dead latents.
        x: Scaled inputs, [B, d_in].
        residual: e = x - x_hat in the same units, [B, d_in], or that of a transcoder's scaled
            targets, [B, d_out]; taken as a constant.
        dead: Dead latents, [d_sae] bool, the same on all ranks.
        k_aux: Dead latents used per row, at most.
        process_group: Ranks over which the means are taken.

    Returns:
        A scalar, at least float32; 0 when nothing is dead or the residual is constant.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae = SparseAutoencoder(4, 8, TopK(2))
        >>> x = torch.randn(3, 4)
        >>> aux_k_loss(sae, x, x, torch.zeros(8, dtype=torch.bool), k_aux=2)
        tensor(0.)
    """
    residual = residual.detach().to(torch.promote_types(residual.dtype, torch.float32))
    latents = dead.nonzero().squeeze(1)
    if len(latents) == 0:
        return residual.new_zeros(())
    variance = global_variance(residual, process_group)
    W_enc, b_enc, subtracted = sae.encoder
    encoder = W_enc[latents], b_enc[latents], subtracted
    if len(latents) <= k_aux:
        # All of them are used, so there is nothing to select.
        e_hat = reference.activations(x, *encoder) @ sae.W_dec[latents]
    else:
        order = PairOrder()
        code = encode_topk(x, *encoder, k_aux, order=order)
        e_hat = sparse_decode(code.values, code.indices, sae.W_dec[latents], order=order)
    error = (residual - e_hat).square().sum() / max(len(x), 1)
    return torch.where(variance > 0, error / variance.clamp_min(1e-30), 0.0 * error)


def global_variance(e: Tensor, process_group: ProcessGroup | None) -> Tensor:
    """mean_i ||e_i - mean(e)||^2 over the batch of all ranks; rounding alone counts as 0."""
    count = torch.full((1,), float(len(e)), dtype=e.dtype, device=e.device)
    total = torch.cat([e.sum(dim=0), count])
    if process_group is not None:
        dist.all_reduce(total, group=process_group)
    rows = total[-1].clamp_min(1)
    mean = total[:-1] / rows
    squares = (e - mean).square().sum()
    if process_group is not None:
        dist.all_reduce(squares, group=process_group)
    rounding = (32 * torch.finfo(e.dtype).eps) ** 2 * mean.square().sum()
    return torch.where(squares / rows > rounding, squares / rows, 0.0)
