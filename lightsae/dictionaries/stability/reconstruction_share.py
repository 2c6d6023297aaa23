"""How much of the reconstruction is made by stable latents, and how much by the others."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.stability.data_moments import DataMoments, ResidualMoments
from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder, SparseCode

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


class SetShare(NamedTuple):
    """What a set of latents contributes (ours); NaN where nothing is explained.

    Attributes:
        lost: Share of the explained variance that is lost without the set; the two sets' need not
            add up to 1.
        share: lost / (lost of both sets), the set's share of the reconstruction.
        per_latent: share / the set's share of the latents that fire; above 1: more than its share.
        per_firing: share / the set's share of the firings.
    """

    lost: float
    share: float
    per_latent: float
    per_firing: float


class ReconstructionShares(NamedTuple):
    """Reconstruction with all latents, and with either set ablated.

    Ablated latents are left out of the decoding; the others keep their activations.

    Attributes:
        full: With all.
        without_stable: Without the stable ones.
        without_unstable: Without the others.
        latents: That fire: stable and unstable.
        firings: Of them.
    """

    full: Fit
    without_stable: Fit
    without_unstable: Fit
    latents: tuple[int, int]
    firings: tuple[int, int]

    @property
    def stable(self) -> SetShare:
        """Of the stable latents."""
        return self._share(0)

    @property
    def unstable(self) -> SetShare:
        """Of the unstable latents."""
        return self._share(1)

    def _share(self, place: int) -> SetShare:
        explained = self.full.explained
        lost = [explained - self.without_stable.explained,
                explained - self.without_unstable.explained]  # fmt: skip
        share = _ratio(lost[place], sum(lost))
        return SetShare(
            _ratio(lost[place], explained),
            share,
            _ratio(share, _ratio(self.latents[place], sum(self.latents))),
            _ratio(share, _ratio(self.firings[place], sum(self.firings))),
        )


class SetAblation:
    """Adds up what is left unexplained with all latents, and with either set ablated.

    Args:
        sae: The autoencoder.
        stable: Its stable latents, [d_sae] bool.

    Attributes:
        firings: How often each latent fires, [d_sae] int64.
        squares: Sum of its squared activations, [d_sae] float64.
    """

    def __init__(self, sae: SparseAutoencoder, stable: Tensor) -> None:
        if stable.dtype != torch.bool or stable.shape != (sae.d_sae,):
            told = f"{list(stable.shape)} {stable.dtype}"
            raise LightsaeError(f"stable is {told}, expected [d_sae = {sae.d_sae}] bool")
        self.sae, self.stable = sae, stable.to(sae.W_dec.device)
        self.firings = torch.zeros(sae.d_sae, dtype=torch.int64, device=sae.W_dec.device)
        self.squares = torch.zeros_like(self.firings, dtype=torch.float64)
        self._residuals = ResidualMoments(), ResidualMoments(), ResidualMoments()

    @torch.no_grad()
    def update(self, x: Tensor, code: SparseCode) -> None:
        """Add a batch [B, d_in] and its code."""
        fired = code.values > 0
        self.firings += torch.bincount(code.indices[fired], minlength=self.sae.d_sae)
        self.squares.index_add_(
            0, code.indices.flatten(), code.values.clamp_min(0).double().square().flatten()
        )
        stable = self.stable[code.indices]
        for moments, left_out in zip(self._residuals, (None, stable, ~stable), strict=True):
            values = code.values if left_out is None else code.values.masked_fill(left_out, 0)
            kept = SparseCode(values, code.indices, code.d_sae, code.statistics)
            moments.update(x - self.sae.decode(kept))

    def compute(self, data: DataMoments) -> ReconstructionShares:
        """The shares.

        Args:
            data: Moments of the same rows.
        """
        full, without_stable, without_unstable = (
            Fit(*moments.explained(data)) for moments in self._residuals
        )
        stable, fires = self.stable, self.firings > 0
        return ReconstructionShares(
            full,
            without_stable,
            without_unstable,
            (int((fires & stable).sum()), int((fires & ~stable).sum())),
            (int(self.firings[stable].sum()), int(self.firings[~stable].sum())),
        )


def reconstruction_shares(
    sae: SparseAutoencoder, rows: Tensor, stable: Tensor
) -> ReconstructionShares:
    """Share of the reconstruction that is made by stable latents, and by the others.

    That stable latents carry most of the reconstruction is a finding of arXiv 2606.12138; the
    definitions, see `SetShare`, are ours.

    Args:
        sae: The autoencoder.
        rows: Activations, [rows, d_in].
        stable: Which of its latents are stable, [d_sae] bool.

    Raises:
        LightsaeError: If sizes do not fit.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae = SparseAutoencoder(3, 3, TopK(3), normalization="none")
        >>> _ = [each.data.copy_(torch.eye(3)) for each in (sae.W_enc, sae.W_dec)]
        >>> rows = torch.tensor([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> found = reconstruction_shares(sae, rows, torch.tensor([True, False, False]))
        >>> found.full.r2, round(found.unstable.lost, 9), found.latents
        (1.0, 0.2, (1, 1))
    """
    if rows.ndim != 2 or rows.shape[1] != sae.d_in:
        raise LightsaeError(f"rows is {list(rows.shape)}, expected [rows, d_in = {sae.d_in}]")
    data, ablation = DataMoments(), SetAblation(sae, stable)
    with torch.no_grad():
        for x in rows.to(sae.W_dec).split(_ROWS):
            data.update(x)
            ablation.update(x, sae.encode(x))
    return ablation.compute(data)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
