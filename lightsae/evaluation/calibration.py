"""The threshold at which k latents of a row are active on average, of a whole set of rows, exactly.

What a threshold is compared with is positive, and positive floats have the order of their bits. One
pass over the rows counts the upper half of the bits; a second one counts the lower half of those
whose upper half is that of the (k rows)-th largest.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.errors import LightsaeError
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder

# Activations that are looked at together.
_CELLS = 1 << 25
_HALF = 16


class Calibration(NamedTuple):
    """What `calibrate_` found.

    Attributes:
        rows: Rows seen.
        before: L0 with the thresholds as they were; None of a BatchTopK that had none.
        after: L0 with those it has now.
        threshold: Mean of these.
    """

    rows: int
    before: float | None
    after: float
    threshold: float


@torch.no_grad()
def calibrate_(sae: SparseAutoencoder, batches: Callable[[], Iterable[Any]]) -> Calibration:
    """Set the threshold of a BatchTopK, or scale those of a JumpReLU, so that L0 is k.

    Ties at the threshold count as active. Where fewer than k activations of a row are positive,
    the threshold is 0.

    Args:
        sae: The autoencoder, on any device; its thresholds are changed.
        batches: Begins a pass over the rows, the same each time: [B, d_in] tensors, or what any
            loader delivers. Called three times.

    Raises:
        LightsaeError: If the rule has no threshold, there are no rows, or no common factor brings
            the thresholds of a JumpReLU to k because too many are 0.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> sae = SparseAutoencoder(d_in=4, d_sae=8, selection=BatchTopK(2))
        >>> x = torch.randn(50, 4)
        >>> found = calibrate_(sae, lambda: x.split(20))
        >>> found.rows, found.before, found.after
        (50, None, 2.0)
    """
    rule = _rule(sae)
    known = isinstance(rule, JumpReLU) or bool(rule.threshold >= 0)
    upper = torch.zeros(1 << _HALF, dtype=torch.int64, device=sae.W_enc.device)
    rows = active = 0
    for x in _parts(sae, batches()):
        bits = _positive_bits(sae, x)
        upper += torch.bincount(bits >> _HALF, minlength=len(upper))
        rows += len(x)
        active += int(sae.encode(x).l0().sum()) if known else 0
    if rows == 0:
        raise LightsaeError("there are no rows to calibrate on")
    wanted, cut = sae.selection.k * rows, 0.0
    if int(upper.sum()) >= wanted:
        digit, left = _digit(upper, wanted)
        lower = torch.zeros_like(upper)
        for x in _parts(sae, batches()):
            bits = _positive_bits(sae, x)
            found = bits[bits >> _HALF == digit] & 0xFFFF
            lower += torch.bincount(found, minlength=len(lower))
        smallest = digit << _HALF | _digit(lower, left)[0]
        # A latent is active above the threshold, not at it.
        cut = torch.tensor(smallest - 1, dtype=torch.int32).view(torch.float32).item()
    _move(rule, cut)
    now = sum(int(sae.encode(x).l0().sum()) for x in _parts(sae, batches()))
    threshold = float(rule.threshold.clamp_min(0).mean())
    return Calibration(rows, active / rows if known else None, now / rows, threshold)


def _rule(sae: SparseAutoencoder) -> BatchTopK | JumpReLU:
    """The rule, if it has thresholds that can be moved."""
    rule = sae.selection
    if not isinstance(rule, BatchTopK | JumpReLU):
        raise LightsaeError(
            f"selection {type(rule).__name__} has no threshold: nothing to calibrate; "
            "BatchTopK and JumpReLU have one"
        )
    if isinstance(rule, JumpReLU) and not (rule.threshold > 0).any():
        raise LightsaeError("all thresholds of the JumpReLU are 0: no factor changes its L0")
    return rule


def _parts(sae: SparseAutoencoder, batches: Iterable[Any]) -> Iterator[Tensor]:
    """Rows, so many that their activations fit into memory."""
    for batch in batches:
        x = as_activation_batch(batch, sae.d_in).activations
        yield from x.to(sae.W_enc).split(max(1, _CELLS // sae.d_sae))


def _positive_bits(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """Bits of the positive activations; of a JumpReLU in units of the latent's threshold."""
    a = sae.pre_activations(x).float()
    if isinstance(sae.selection, JumpReLU):
        a = torch.where(a > 0, a / sae.selection.threshold.clamp_min(0), 0.0)
    return a[a > 0].view(torch.int32)


def _digit(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The digit of the wanted-th largest, and which of those with this digit it is."""
    at_least = counts.flip(0).cumsum(0).flip(0)
    digit = int((at_least >= wanted).sum()) - 1
    return digit, wanted - int(at_least[digit] - counts[digit])


def _move(rule: BatchTopK | JumpReLU, cut: float) -> None:
    """Give a BatchTopK its threshold; multiply those of a JumpReLU."""
    if isinstance(rule, BatchTopK):
        rule.threshold.fill_(cut)
        return
    if not cut < torch.finfo(torch.float32).max:
        raise LightsaeError(
            f"latents whose threshold is 0 are more than k = {rule.k} of a row: no factor of the "
            "others' brings L0 to k"
        )
    rule.threshold.mul_(cut)
