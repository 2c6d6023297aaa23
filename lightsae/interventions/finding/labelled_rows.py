"""Labelled rows, checked before anything is computed from them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.extras import require

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Labels = Sequence[int] | Array | Tensor


def checked_labels(labels: Labels, rows: int) -> Array:
    """Which rows have label 1, bool [rows].

    Args:
        labels: 0 or 1 for each row; both must be there.
        rows: How many there should be.

    Raises:
        LightsaeError: If they are others, too few or too many, or of one class only.

    Example:
        >>> checked_labels([0, 1, 1], rows=3)
        array([False,  True,  True])
        >>> checked_labels([1, 1, 1], rows=3)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: labels: no row has label 0, expected rows of both labels
    """
    found = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if found.shape != (rows,):
        raise LightsaeError(f"labels has shape {list(found.shape)}, expected [rows = {rows}]")
    wrong = found[~np.isin(found, (0, 1))]
    if len(wrong):
        raise LightsaeError(f"labels: {wrong[0]} is none, expected 0 or 1 for each row")
    for label in (0, 1):
        if not (found == label).any():
            raise LightsaeError(f"labels: no row has label {label}, expected rows of both labels")
    ones: Array = found == 1
    return ones


def checked_features(features: "csr_array | Array | Tensor", name: str) -> "csr_array | Array":
    """Features as they were given, a tensor as an array, [rows, d] floats.

    Args:
        features: A scipy sparse array, or a dense array or tensor.
        name: What messages call them.

    Raises:
        LightsaeError: If they are no matrix, or not finite.
        MissingExtraError: If scipy is not installed.
    """
    sparse = require("scipy.sparse", extra="evaluation")
    if sparse.issparse(features):
        found = _narrow_indices(sparse.csr_array(features))
        numbers = found.data
    else:
        given = torch.as_tensor(features).detach().cpu()
        # numpy has no bfloat16.
        found = numbers = (given if given.dtype.itemsize > 2 else given.float()).numpy()
    if found.ndim != 2:
        raise LightsaeError(f"{name} has shape {list(found.shape)}, expected [rows, d]")
    if not np.isfinite(numbers).all():
        raise LightsaeError(f"{name} holds NaN or inf, expected finite numbers")
    return found


def _narrow_indices(rows: "csr_array") -> "csr_array":
    """A CSR array with int32 indices where they fit: scikit-learn takes no wider ones."""
    if rows.indices.dtype == np.int32 or max(rows.nnz, *rows.shape) > np.iinfo(np.int32).max:
        return rows
    narrow = rows.indices.astype(np.int32), rows.indptr.astype(np.int32)
    return type(rows)((rows.data, *narrow), shape=rows.shape)


def checked_codes(codes: "csr_array | Array | Tensor") -> "csr_array":
    """Codes as a scipy CSR array [rows, d_sae] without stored zeros; see `checked_features`."""
    sparse = require("scipy.sparse", extra="evaluation")
    found = sparse.csr_array(checked_features(codes, "codes"), copy=True)
    found.sum_duplicates()
    found.eliminate_zeros()
    return found
