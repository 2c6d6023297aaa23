"""Weighted sums of rows, one for each latent."""

import warnings

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def add_weighted_rows_(
    sums: Tensor, rows: Tensor, weights: Tensor, places: Tensor, counts: Tensor
) -> None:
    """Add to each sum its entries' rows times their weights, in the order of the entries.

    Args:
        sums: [n, width], contiguous; added to in place.
        rows: [m, width], of its dtype.
        weights: Of each entry [entries], of its dtype.
        places: Row of each entry, int64 [entries]; those of the first sum come first, then those
            of the second.
        counts: Entries of each sum, int64 [n].

    Example:
        >>> sums = torch.zeros(2, 2)
        >>> entries = torch.tensor([3.0, 4.0]), torch.tensor([1, 0]), torch.tensor([0, 2])
        >>> add_weighted_rows_(sums, torch.eye(2), *entries)
        >>> sums
        tensor([[0., 0.],
                [4., 3.]])
    """
    if len(weights) == 0:
        return
    if sums.is_cpu and torch.backends.mkl.is_available():
        # Five times faster in float64 than a bag, which has one thread and no vectors there.
        torch.addmm(sums, _sparse(weights, places, counts, len(rows)), rows, out=sums)
        return
    present = counts.nonzero().squeeze(1)
    starts = (counts.cumsum(0) - counts)[present]
    added = embedding_bag(places, rows, starts, mode="sum", per_sample_weights=weights)
    sums.index_add_(0, present, added)


def _sparse(weights: Tensor, places: Tensor, counts: Tensor, m: int) -> Tensor:
    """The weights as a sparse matrix [n, m]."""
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            ends, places, weights, (len(counts), m), check_invariants=False
        )
