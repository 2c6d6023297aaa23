"""Decoder coherence: how parallel the directions of two latents are."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.metrics.metric_base import ExactMetric

# Rows of a block of cosines, [_BLOCK, d_sae] float64 at most at once.
_BLOCK = 256


class Coherence:
    """How parallel the rows of a decoder are.

    Attributes:
        largest: Largest |cosine| of two rows, float64 scalar; NaN without a pair.
        mean: Mean |cosine| over all pairs of rows, float64 scalar; NaN without a pair.
        nearest: Largest |cosine| of each row with another [d_sae], float64; NaN for a row of zeros
            and for one without another.
    """

    def __init__(self, largest: Tensor, mean: Tensor, nearest: Tensor) -> None:
        self.largest = largest
        self.mean = mean
        self.nearest = nearest


def _blocks(unit: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield where a block begins and |cosines| of its rows with themselves and those behind."""
    for start in range(0, len(unit), _BLOCK):
        cosines = (unit[start : start + _BLOCK] @ unit[start:].T).abs_()
        cosines.diagonal().fill_(0)
        yield start, cosines


def _decoder_coherence_update(W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest of each row (-1 where it has none), the sum and the number of pairs."""
    require_tensors(W_dec=W_dec)
    if W_dec.ndim != 2:
        raise LightsaeError(f"W_dec has shape {list(W_dec.shape)}, expected [d_sae, d_in]")
    W_dec = W_dec.detach().double()
    if not W_dec.isfinite().all():
        raise LightsaeError("W_dec must be finite")
    norms = torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
    present = (norms[:, 0] > 0).nonzero().squeeze(1)
    unit = (W_dec / norms)[present]
    nearest, total = torch.zeros_like(unit[:, 0]), unit.new_zeros(())
    for start, cosines in _blocks(unit):
        own = cosines[:, : len(cosines)]
        total += cosines.sum() - own.sum() / 2
        here = nearest[start:]
        torch.maximum(here, cosines.amax(0), out=here)
        own_rows = nearest[start : start + len(cosines)]
        torch.maximum(own_rows, cosines.amax(1), out=own_rows)
    found = torch.full_like(norms[:, 0], -1)
    if len(unit) > 1:
        found[present] = nearest
    return found, total, torch.tensor(len(unit) * (len(unit) - 1) // 2, device=W_dec.device)


def _decoder_coherence_compute(nearest: Tensor, total: Tensor, pairs: Tensor) -> Coherence:
    """Return the figures; NaN where there is no pair."""
    largest = torch.cat([nearest, nearest.new_tensor([-1])]).amax(0)
    largest, nearest = (each.where(each >= 0, torch.nan) for each in (largest, nearest))
    return Coherence(largest, total / pairs, nearest)


def decoder_coherence(W_dec: Tensor) -> Coherence:
    """Largest and mean |cosine| between two decoder rows.

    `max_{i != j} |cos(w_i, w_j)|`, the mutual coherence of a dictionary (Donoho and Huo 2001), and
    the mean over the pairs i < j. Rows of zeros have no direction and are left out. In blocks, so
    the d_sae^2 cosines are never held at once; in float64.

    Args:
        W_dec: Decoder, a latent per row [d_sae, d_in].

    Raises:
        LightsaeError: If it is no such matrix or not finite.

    Example:
        >>> coherence = decoder_coherence(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 4.0]]))
        >>> coherence.largest, coherence.nearest
        (tensor(0.8000, dtype=torch.float64), tensor([0.6000, 0.8000, 0.8000], dtype=torch.float64))
    """
    return _decoder_coherence_compute(*_decoder_coherence_update(W_dec))


class DecoderCoherence(ExactMetric):
    """Largest and mean |cosine| between two decoder rows; see `decoder_coherence`.

    Given more than one decoder, or one on several ranks, it takes the largest of all and the mean
    over the pairs within each.

    Args:
        d_sae: Number of latents.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = DecoderCoherence(d_sae=3)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 4.0]]))
        >>> metric.compute().mean
        tensor(0.4667, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    nearest: Tensor
    total: Tensor
    pairs: Tensor

    def __init__(self, d_sae: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae = size("d_sae", d_sae)
        none = torch.full((self.d_sae,), -1, dtype=torch.float64)
        self.add_state("nearest", none, dist_reduce_fx="max")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pairs", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, W_dec: Tensor) -> None:
        """Add a decoder.

        Args:
            W_dec: A latent per row [d_sae, d_in].

        Raises:
            LightsaeError: If it is no such matrix, has another number of rows or is not finite.
        """
        nearest, total, pairs = _decoder_coherence_update(W_dec)
        if len(nearest) != self.d_sae:
            raise LightsaeError(f"W_dec has {len(nearest)} rows, expected d_sae = {self.d_sae}")
        self.nearest = self.nearest.maximum(nearest)
        self.total = self.total + total
        self.pairs = self.pairs + pairs

    def compute(self) -> Coherence:
        """Return the figures."""
        return _decoder_coherence_compute(self.nearest, self.total, self.pairs)
