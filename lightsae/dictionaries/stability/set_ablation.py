"""What is left unexplained when a set of latents is ablated, whichever set it will be."""

from typing import NamedTuple

import torch
from lightsae_kernels import sparse_decode
from torch import Tensor

from lightsae.dictionaries.stability.data_moments import DataMoments, ResidualMoments
from lightsae.sae import SparseAutoencoder, SparseCode

# Numbers of decoder rows that are gathered at once.
_GATHERED = 2**22
_ROWS = 4096


class Fit(NamedTuple):
    """How well rows are reconstructed.

    Attributes:
        r2: 1 - sum ||e||^2 / sum ||x - mean(x)||^2 with e = x - x_hat.
        explained: 1 - sum ||e - mean(e)||^2 / sum ||x - mean(x)||^2: R2 with the best constant
            added, so that ablation counts what varies.
    """

    r2: float
    explained: float


class SetAblation:
    """One pass over the data, after which any set of latents can be ablated.

    With e = x - x_hat and u what the set adds to x_hat, the residual without it is e + u, and
    `sum ||e + u||^2 = sum ||e||^2 + 2 sum <e, u> + sum ||u||^2`. Of <e, u> each latent's part is
    added up; for the last term the codes are kept, in float32 8 bytes an activation.

    Args:
        sae: The autoencoder.

    Attributes:
        firings: How often each latent fires, [d_sae] int64.
        squares: Sum of its squared activations, [d_sae] float64.
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae
        self.firings = torch.zeros(sae.d_sae, dtype=torch.int64, device=sae.W_dec.device)
        self.squares = torch.zeros_like(self.firings, dtype=torch.float64)
        # Of each latent the sum of what it is decoded with, and of that times <e, w>.
        self._amounts, self._along = self.squares.clone(), self.squares.clone()
        self._residual = ResidualMoments()
        self._codes: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, x: Tensor, code: SparseCode) -> None:
        """Add a batch [B, d_in] and its code."""
        residual = x - self.sae.decode(code)
        self._residual.update(residual)
        amounts = (code.values * self.sae.output_factor(code)).to(code.values.dtype)
        places = code.indices.flatten()
        self.firings += torch.bincount(
            places[code.values.flatten() > 0], minlength=len(self.firings)
        )
        self.squares.index_add_(0, places, code.values.double().square().flatten())
        self._amounts.index_add_(0, places, amounts.double().flatten())
        along = self._products(residual, code.indices).double() * amounts
        self._along.index_add_(0, places, along.flatten())
        self._codes.append((amounts, code.indices.int()))

    @torch.no_grad()
    def without(self, left_out: Tensor | None, data: DataMoments) -> Fit:
        """Fit without a set of latents.

        Args:
            left_out: Which, [d_sae] bool; None for the reconstruction as it is.
            data: Moments of the same rows.
        """
        if left_out is None:
            return Fit(*self._residual.explained(data))
        added = (self._amounts * left_out) @ self.sae.W_dec.double()
        square = 2 * float(self._along[left_out].sum()) + self._square(left_out)
        return Fit(*self._residual.moved(added, square).explained(data))

    def _products(self, residual: Tensor, indices: Tensor) -> Tensor:
        """Scalar products of residuals and the decoder rows of their codes, [B, k]."""
        step = max(1, _GATHERED // max(1, indices.shape[1] * residual.shape[1]))
        parts = zip(residual.split(step), indices.split(step), strict=True)
        return torch.cat([(self.sae.W_dec[rows] @ e[:, :, None])[:, :, 0] for e, rows in parts])

    def _square(self, kept: Tensor) -> float:
        """Sum over rows of the squared norm of what a set adds."""
        total = 0.0
        for amounts, indices in self._codes:
            for part, latents in zip(amounts.split(_ROWS), indices.split(_ROWS), strict=True):
                places = latents.long()
                u = sparse_decode(part * kept[places], places, self.sae.W_dec)
                total += float(u.double().square().sum())
        return total
