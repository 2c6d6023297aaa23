"""Latents above a threshold: how rules that learn one encode new inputs."""

from functools import partial
from typing import Any

import torch
from lightsae_kernels import Encoded, encode_topk, reference
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.sae.regularizers import Regularizer
from lightsae.sae.selection.fused_selection import with_dense_penalty

_STEP = 16


class Threshold:
    """Keep activations above a threshold, of all latents or of each its own.

    Rows have as many active latents as they happen to have: a code has the places of its fullest
    row, at least one, values descending.

    Args:
        k: Latents active per row on average; how many candidates a row gets at first.
        threshold: Scalar or [d_sae]; what is below 0 counts as 0.

    Example:
        >>> encoder = torch.eye(3), torch.zeros(3), torch.zeros(3)
        >>> x = torch.tensor([[1.0, 5.0, 3.0], [0.5, 0.0, 0.1]])
        >>> Threshold(1, torch.tensor(2.0)).encode(x, encoder).values
        tensor([[5., 3.],
                [0., 0.]])
    """

    def __init__(self, k: int, threshold: Tensor) -> None:
        self.k, self.threshold = k, threshold

    def settings(self) -> dict[str, Any]:
        """Nothing: the rule that learned the threshold saves it."""
        return {}

    def encode(
        self,
        x: Tensor,
        encoder: tuple[Tensor, Tensor, Tensor],
        *,
        k: int | None = None,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Encoded:
        """Encode a batch; see `FusedSelection.encode`. A regularizer is evaluated densely."""
        operation = partial(encode_topk, x, *encoder, process_group=process_group)
        if k is not None:
            encoded = operation(k)
        else:
            threshold = self.threshold.detach().clamp_min(0)
            found = encode_above(x, encoder, threshold, self.k)
            encoded = as_code(found.values, found.indices, len(encoder[0]), process_group)
        if regularizer is None:
            return encoded
        return with_dense_penalty(encoded, x, encoder, regularizer)


def encode_above(
    x: Tensor, encoder: tuple[Tensor, Tensor, Tensor], threshold: Tensor, k: int
) -> Encoded:
    """All activations above a threshold.

    On a GPU they come from the fused Top-k of how far they are above it.

    Args:
        x: Inputs, [B, d_in].
        encoder: W_enc [d_sae, d_in], b_enc [d_sae] and b_dec [d_in].
        threshold: Scalar or [d_sae], at least 0.
        k: How many of a row are expected; on a GPU twice as many are tried, then more.

    Returns:
        The code: values are 0 in unused places.
    """
    W_enc, b_enc, b_dec = encoder
    d_sae = len(W_enc)
    if x.is_cpu:
        return encode_topk(x, *encoder, min(k, d_sae), above=threshold)
    lowered = threshold.to(b_enc.dtype).expand(d_sae)
    count = min(d_sae, -(-2 * k // _STEP) * _STEP)
    while True:
        margins = encode_topk(x, W_enc, b_enc - lowered, b_dec, count, narrow=_fires)
        if count == d_sae or not bool((margins.values[:, -1] > 0).any()):
            break
        count = min(d_sae, 2 * count)
    restored = margins.values + lowered[margins.indices].to(margins.values)
    return margins._replace(values=torch.where(margins.values > 0, restored, 0.0))


def _fires(values: Tensor, indices: Tensor) -> Tensor:
    """Candidates that are above their threshold."""
    return values > 0


def as_code(
    values: Tensor, indices: Tensor, d_sae: int, process_group: ProcessGroup | None
) -> Encoded:
    """A code of as many places as its fullest row uses, values descending.

    Args:
        values: Activations, 0 in unused places, [B, K].
        indices: Their latents, [B, K].
        d_sae: Size of the dictionary.
        process_group: Ranks over which the batch-active mask is the union.
    """
    values, places = values.sort(dim=1, descending=True, stable=True)
    counts = (values > 0).sum(dim=1)
    width = max(1, int(counts.max())) if len(counts) else 1
    values = values[:, :width].contiguous()
    indices = indices.gather(1, places[:, :width])
    used = values > 0
    active = reference.batch_active_mask(indices, d_sae, process_group, used)
    wide = torch.promote_types(values.dtype, torch.float32)
    return Encoded(values, indices, values.new_zeros((), dtype=wide), active, used)
