"""`LayerFeatures`: what a layer shows of each sample, pooled over its places."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.interventions.hooks.layer_code import LayerCode

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FeaturePooling = Literal["mean_nonzero", "mean", "max", "none"]


class LayerFeatures(NamedTuple):
    """Features of one layer, a row for each sample.

    Attributes:
        codes: scipy CSR array [n, d_sae] float32.
        activations: Raw activations, mean over places, [n, d_in] float32.
    """

    codes: "csr_array"
    activations: Array


def pooled(
    seen: LayerCode, pooling: FeaturePooling, present: Tensor | None = None
) -> LayerFeatures:
    """Features of one pass.

    Args:
        seen: The code, recorded with activations.
        pooling: How places become one: the mean of a latent over the places where it fires
            ("mean_nonzero", arXiv 2606.07473), the mean over all, the largest; "none" gives a row
            for each place instead, of raw activations too.
        present: Where samples are not padded, bool [B, T]; padding counts for nothing, and has no
            row with "none". A sample of nothing but padding has zeros.

    Raises:
        LightsaeError: If there is no such pooling.

    Example:
        >>> import torch
        >>> from lightsae.sae import SparseCode
        >>> code = SparseCode(torch.tensor([[2.0], [4.0], [0.0]]), torch.tensor([[1]] * 3), d_sae=2)
        >>> seen = LayerCode(code, lead=(1, 3), activations=torch.ones(1, 3, 2))
        >>> [pooled(seen, how).codes.toarray().tolist() for how in ("mean_nonzero", "mean")]
        [[[0.0, 3.0]], [[0.0, 2.0]]]
        >>> pooled(seen, "max", torch.tensor([[True, False, True]])).codes.toarray().tolist()
        [[0.0, 2.0]]
    """
    require_pooling(pooling)
    assert seen.activations is not None
    rows, samples = len(seen.code), seen.lead[0]
    kept: Array = np.ones(rows, bool) if present is None else present.flatten().cpu().numpy()
    raw = seen.activations.detach().cpu().double().numpy().reshape(rows, seen.activations.shape[-1])
    if pooling == "none":
        of, raw = np.cumsum(kept) - 1, raw[kept]
        samples = len(raw)
    else:
        each = rows // max(samples, 1)
        of = np.arange(rows) // max(each, 1)
        raw = np.where(kept[:, None], raw, 0).reshape(samples, each, raw.shape[1]).sum(axis=1)
    places = np.maximum(np.bincount(of[kept], minlength=samples), 1)
    values = seen.code.values.detach().cpu().double().numpy()
    fires = (values > 0) & kept[:, None]
    key = of[np.nonzero(fires)[0]] * seen.code.d_sae + seen.code.indices.cpu().numpy()[fires]
    shape = samples, seen.code.d_sae
    codes = _sparse(key, values[fires], shape, places, pooling)
    return LayerFeatures(codes, (raw / places[:, None]).astype(np.float32))


def present_places(batch: object, lead: Sequence[int]) -> Tensor | None:
    """Which places of a layer are no padding, by the attention_mask of a batch.

    Args:
        batch: Whatever the model was given; one without an attention_mask [B, T] tells nothing.
        lead: Axes of the layer's places; where they are not [B, T] the mask is about others, such
            as those of an encoder.

    Returns:
        Bool [B, T], or None where nothing is told.

    Example:
        >>> import torch
        >>> batch = {"attention_mask": torch.tensor([[1, 0]])}
        >>> present_places(batch, (1, 2)), present_places(batch, (1, 3))
        (tensor([[ True, False]]), None)
    """
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or tuple(mask.shape) != tuple(lead) or mask.ndim != 2:
        return None
    return mask.bool()


def require_pooling(pooling: str) -> None:
    """Refuse an unknown way to pool."""
    known = get_args(FeaturePooling)
    if pooling not in known:
        raise LightsaeError(f"pooling is {pooling!r}, expected one of {', '.join(known)}")


def _sparse(
    key: Array, values: Array, shape: tuple[int, int], places: Array, pooling: FeaturePooling
) -> "csr_array":
    """Entries of the same row and latent as one."""
    sparse = require("scipy.sparse", extra="evaluation")
    order = np.argsort(key, kind="stable")
    found, first, count = np.unique(key[order], return_index=True, return_counts=True)
    if not len(found):
        return sparse.csr_array(shape, dtype=np.float32)
    join = np.maximum if pooling == "max" else np.add
    data = join.reduceat(values[order], first)
    # scikit-learn takes no wider indices.
    row, latent = (place.astype(np.int32) for place in np.divmod(found, shape[1]))
    if pooling in ("mean", "mean_nonzero"):
        data = data / (places[row] if pooling == "mean" else count)
    return sparse.csr_array((data.astype(np.float32), (row, latent)), shape=shape)
