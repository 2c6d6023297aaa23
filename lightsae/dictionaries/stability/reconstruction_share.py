"""How much of the reconstruction is made by stable latents, and how much by the others."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.stability.data_moments import DataMoments
from lightsae.dictionaries.stability.set_ablation import Fit, SetAblation
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors
from lightsae.sae import SparseAutoencoder, Transcoder

_ROWS = 4096


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
        LightsaeError: If sizes do not fit, a row is not finite, or it is a transcoder.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae = SparseAutoencoder(3, 3, TopK(3), normalization="none")
        >>> _ = [each.data.copy_(torch.eye(3)) for each in (sae.W_enc, sae.W_dec)]
        >>> rows = torch.tensor([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> found = reconstruction_shares(sae, rows, torch.tensor([True, False, False]))
        >>> found.full.r2, round(found.unstable.lost, 9), found.latents
        (1.0, 0.2, (1, 1))
    """
    require_autoencoder("sae", sae)
    require_tensors(rows=rows)
    require_tensors(stable=stable)
    if rows.ndim != 2 or rows.shape[1] != sae.d_in:
        raise LightsaeError(f"rows is {list(rows.shape)}, expected [rows, d_in = {sae.d_in}]")
    if stable.dtype != torch.bool or stable.shape != (sae.d_sae,):
        told = f"{list(stable.shape)} {stable.dtype}"
        raise LightsaeError(f"stable is {told}, expected [d_sae = {sae.d_sae}] bool")
    data, ablation = DataMoments(), SetAblation(sae)
    with torch.no_grad():
        for x in rows.to(sae.W_dec).split(_ROWS):
            data.update(x)
            ablation.update(x, sae.encode(x))
    return shares_of(ablation, stable, data)


def shares_of(ablation: SetAblation, stable: Tensor, data: DataMoments) -> ReconstructionShares:
    """The shares, from a pass over the rows.

    Args:
        ablation: Of the autoencoder.
        stable: Which of its latents are stable, [d_sae] bool.
        data: Moments of the same rows.
    """
    stable = stable.to(ablation.firings.device)
    fires, firings = ablation.firings > 0, ablation.firings
    return ReconstructionShares(
        ablation.without(None, data),
        ablation.without(stable, data),
        ablation.without(~stable, data),
        (int((fires & stable).sum()), int((fires & ~stable).sum())),
        (int(firings[stable].sum()), int(firings[~stable].sum())),
    )


def require_autoencoder(name: str, sae: object) -> None:
    """Refuse what is no autoencoder, and a transcoder, which reconstructs something else.

    Example:
        >>> require_autoencoder("sae", torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: sae is a Linear, expected a SparseAutoencoder
    """
    if isinstance(sae, Transcoder):
        raise LightsaeError(f"{name} is a transcoder, expected an autoencoder")
    if not isinstance(sae, SparseAutoencoder):
        raise LightsaeError(f"{name} is a {type(sae).__name__}, expected a SparseAutoencoder")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
