"""`LayerFeatures`: what a layer shows of each sample, pooled over its places."""

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

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


def pooled(seen: LayerCode, pooling: FeaturePooling) -> LayerFeatures:
    """Features of one pass.

    Args:
        seen: The code, recorded with activations.
        pooling: How places become one: the mean of a latent over the places where it fires
            ("mean_nonzero", arXiv 2606.07473), the mean over all, the largest; "none" gives a row
            for each place instead, of raw activations too.

    Raises:
        LightsaeError: If there is no such pooling.

    Example:
        >>> import torch
        >>> from lightsae.sae import SparseCode
        >>> code = SparseCode(torch.tensor([[2.0], [4.0], [0.0]]), torch.tensor([[1]] * 3), d_sae=2)
        >>> seen = LayerCode(code, lead=(1, 3), activations=torch.ones(1, 3, 2))
        >>> [pooled(seen, how).codes.toarray().tolist() for how in ("mean_nonzero", "mean")]
        [[[0.0, 3.0]], [[0.0, 2.0]]]
    """
    require_pooling(pooling)
    assert seen.activations is not None
    rows, samples = len(seen.code), seen.lead[0]
    places = 1 if pooling == "none" else rows // max(samples, 1)
    values = seen.code.values.detach().cpu().double().numpy()
    fires = values > 0
    row = np.nonzero(fires)[0] // places
    key = row * seen.code.d_sae + seen.code.indices.cpu().numpy()[fires]
    raw = seen.activations.detach().cpu().double().numpy()
    raw = raw.reshape(rows // places, places, raw.shape[-1]).mean(axis=1)
    shape = rows // places, seen.code.d_sae
    return LayerFeatures(
        _sparse(key, values[fires], shape, places, pooling), raw.astype(np.float32)
    )


def require_pooling(pooling: str) -> None:
    """Refuse an unknown way to pool."""
    known = get_args(FeaturePooling)
    if pooling not in known:
        raise LightsaeError(f"pooling is {pooling!r}, expected one of {', '.join(known)}")


def _sparse(
    key: Array, values: Array, shape: tuple[int, int], places: int, pooling: FeaturePooling
) -> "csr_array":
    """Entries of the same row and latent as one."""
    sparse = require("scipy.sparse", extra="evaluation")
    order = np.argsort(key, kind="stable")
    found, first, count = np.unique(key[order], return_index=True, return_counts=True)
    if not len(found):
        return sparse.csr_array(shape, dtype=np.float32)
    join = np.maximum if pooling == "max" else np.add
    data = join.reduceat(values[order], first)
    if pooling in ("mean", "mean_nonzero"):
        data = data / (places if pooling == "mean" else count)
    # scikit-learn takes no wider indices.
    row, latent = (place.astype(np.int32) for place in np.divmod(found, shape[1]))
    return sparse.csr_array((data.astype(np.float32), (row, latent)), shape=shape)
