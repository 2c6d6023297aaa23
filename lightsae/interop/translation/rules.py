"""Selection rules as other formats have them: a k, one threshold, or one for each latent."""

from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import BatchTopK, JumpReLU, Selection, SparseAutoencoder

# Of a BatchTopK whose files have none: as it is before it has learned one.
UNKNOWN_THRESHOLD = torch.tensor(-1.0)
NO_THRESHOLD = "Its files have no threshold for inference: lightsae calibrate finds one."
# The k of a rule whose files do not say how many latents it is to keep.
_UNKNOWN_K = 32


def threshold_rule(
    threshold: Tensor, k: Any = None, *, batch: bool = False
) -> tuple[Selection, Tensor]:
    """The rule that keeps activations above thresholds, and what its `threshold` is to be.

    A rectified activation is above a negative threshold exactly where it is above 0.

    Args:
        threshold: A scalar, or [d_sae].
        k: The mean number of latents per row, where the files say it. It decides nothing, and is 32
            otherwise.
        batch: Whether it was trained as BatchTopK, whose threshold is one number.

    Example:
        >>> rule, threshold = threshold_rule(torch.tensor([0.5, 0.5]), 1, batch=True)
        >>> type(rule).__name__, rule.k, threshold
        ('BatchTopK', 1, tensor(0.5000))
        >>> rule, threshold = threshold_rule(torch.tensor([0.5, -2.0]))
        >>> type(rule).__name__, rule.k, threshold
        ('JumpReLU', 2, tensor([0.5000, 0.0000]))
    """
    threshold = threshold.detach().float().clamp(0, torch.finfo(torch.float32).max)
    known = isinstance(k, (int, float)) and 1 <= k <= threshold.numel()
    rounded = round(k) if known else min(_UNKNOWN_K, threshold.numel())
    if batch and known and bool((threshold == threshold.flatten()[0]).all()):
        return BatchTopK(rounded), threshold.flatten()[0].clone()
    return JumpReLU(rounded), threshold


def require_rule(sae: SparseAutoencoder, format_name: str, *kinds: type) -> None:
    """Refuse a selection rule that a format has no place for.

    Raises:
        LightsaeError: Naming the rules it has.

    Example:
        >>> from lightsae.sae import GroupMax, TopK
        >>> require_rule(SparseAutoencoder(4, 8, GroupMax(2)), "saev", TopK, BatchTopK)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: saev has no rule GroupMax, expected one of TopK, BatchTopK
    """
    if type(sae.selection) not in kinds:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise LightsaeError(
            f"{format_name} has no rule {type(sae.selection).__name__}, expected one of {names}"
        )


def thresholds(sae: SparseAutoencoder) -> Tensor:
    """The threshold of each latent of BatchTopK or JumpReLU, [d_sae] float32.

    Raises:
        LightsaeError: If a BatchTopK has never learned its threshold.

    Example:
        >>> thresholds(SparseAutoencoder(4, 8, BatchTopK(2)))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: BatchTopK has no threshold yet: lightsae calibrate finds it
    """
    assert isinstance(sae.selection, (BatchTopK, JumpReLU))
    threshold = sae.selection.threshold.detach().float()
    if not (threshold >= 0).all() and isinstance(sae.selection, BatchTopK):
        raise LightsaeError("BatchTopK has no threshold yet: lightsae calibrate finds it")
    return threshold.clamp_min(0).expand(sae.d_sae).clone()
