"""What a row says beyond its sequence: codes less the mean code of their sequence."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode
from lightsae.sae.index_checks import integers, latent_indices


class SequenceCode(NamedTuple):
    """The codes of one sequence less their mean; latents that are not told are 0 everywhere.

    Attributes:
        sequence: Its number.
        rows: Its rows in the code that was given [t], int64.
        latents: Those that fire in it, ascending [m], int64.
        values: Their activations less the mean over its rows [t, m], in the dtype of the code.
    """

    sequence: int
    rows: Tensor
    latents: Tensor
    values: Tensor


class Distinctive(NamedTuple):
    """The latents that are furthest above the mean of their sequence.

    Attributes:
        values: How far, descending [rows, n]; 0 where there is none.
        latents: Which, the lowest of equals first [rows, n], int64; -1 where there is none.
    """

    values: Tensor
    latents: Tensor


@torch.no_grad()
def subtract_sequence_mean(code: SparseCode, sequence: Tensor) -> Iterator[SequenceCode]:
    """Of each sequence its codes less their mean, one after the other.

    What all rows of a text or image have in common is gone, as in the case studies of VASAE (arXiv
    2606.27941). Only latents that fire in a sequence are held, densely, and only while it is
    looked at. The mean is formed in float64.

    Args:
        code: Codes of rows.
        sequence: Which sequence each row belongs to [rows], integers; rows may be in any order.

    Yields:
        Sequences by number, ascending.

    Raises:
        LightsaeError: If the two do not fit together.

    Example:
        >>> code = SparseCode(torch.tensor([[3.0], [1.0]]), torch.tensor([[5], [5]]), d_sae=8)
        >>> [one] = subtract_sequence_mean(code, torch.tensor([0, 0]))
        >>> one.latents, one.values
        (tensor([5]), tensor([[ 1.],
                [-1.]]))
    """
    sequence = _checked(code, sequence)
    order = sequence.argsort(stable=True)
    numbers, counts = sequence[order].unique_consecutive(return_counts=True)
    indices = code.indices.long()
    for number, rows in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
        values, taken = code.values[rows].double(), indices[rows]
        latents, column = taken[values != 0].unique(return_inverse=True)
        row = (values != 0).nonzero()[:, 0]
        dense = values.new_zeros(len(rows), len(latents))
        dense.index_put_((row, column), values[values != 0], accumulate=True)
        centred = (dense - dense.mean(dim=0)).to(code.values.dtype)
        yield SequenceCode(number, rows, latents, centred)


@torch.no_grad()
def distinctive_latents(code: SparseCode, sequence: Tensor, n: int = 5) -> Distinctive:
    """Of each row the latents that are furthest above the mean of its sequence.

    Args:
        code: Codes of rows.
        sequence: Which sequence each row belongs to [rows], integers.
        n: How many, at least 1. Latents that are not above the mean are none.

    Raises:
        LightsaeError: If the two do not fit together, or n is less than 1.

    Example:
        >>> values = torch.tensor([[9.0, 2.0], [9.0, 0.0]])
        >>> code = SparseCode(values, torch.tensor([[0, 4], [0, 4]]), d_sae=8)
        >>> distinctive_latents(code, torch.tensor([0, 0]), n=1).latents
        tensor([[ 4],
                [-1]])
    """
    if n < 1:
        raise LightsaeError(f"n is {n}, expected at least 1")
    most = code.values.new_zeros(len(code), n)
    which = torch.full((len(code), n), -1, device=code.values.device)
    for _, rows, latents, values in subtract_sequence_mean(code, sequence):
        found, column = (each[:, :n] for each in values.sort(dim=1, descending=True, stable=True))
        above = found > 0
        most[rows, : found.shape[1]] = found.where(above, 0)
        which[rows, : found.shape[1]] = latents[column].where(above, -1)
    return Distinctive(most, which)


def _checked(code: SparseCode, sequence: Tensor) -> Tensor:
    """The numbers of sequences, int64."""
    latent_indices(code.values, code.indices, code.d_sae)
    if list(sequence.shape) != [len(code)]:
        raise LightsaeError(f"sequence is {list(sequence.shape)}, expected [rows = {len(code)}]")
    return integers("sequence", sequence).to(code.values.device)
