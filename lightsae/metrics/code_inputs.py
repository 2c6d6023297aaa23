"""Codes as metrics take them: a `SparseCode`, or values and indices, checked."""

from operator import index
from typing import SupportsIndex, TypeVar, cast

from torch import Tensor, iinfo, int64

from lightsae.errors import LightsaeError
from lightsae.sae.index_checks import integers, latent_indices
from lightsae.sae.sparse_code import SparseCode

Code = SparseCode | Tensor

_T = TypeVar("_T")


def unpacked(values: Code, indices: Tensor | None, d_sae: int | None) -> tuple[Tensor, Tensor, int]:
    """Values, indices and d_sae, from a code or as given.

    Args:
        values: A code, or activations of any shape.
        indices: Latents of the same shape and on the same device, integers; not beside a code.
        d_sae: Number of latents; that of a code where left out.

    Returns:
        Values, int64 indices and d_sae.

    Raises:
        LightsaeError: If they do not fit together, a value is not finite or a latent is not in
            the dictionary.

    Example:
        >>> import torch
        >>> code = SparseCode(torch.ones(1, 1), torch.tensor([[3]]), d_sae=4)
        >>> unpacked(code, None, None)
        (tensor([[1.]]), tensor([[3]]), 4)
    """
    if isinstance(values, SparseCode):
        if indices is not None:
            raise LightsaeError("indices: a SparseCode has its own, leave them out")
        if d_sae not in (None, values.d_sae):
            raise LightsaeError(f"the code has d_sae = {values.d_sae}, expected d_sae = {d_sae}")
        d_sae, indices, values = values.d_sae, values.indices, values.values
    if indices is None:
        raise LightsaeError("indices is missing: give values and indices, or a SparseCode")
    d_sae = required("d_sae", d_sae)
    require_tensors(values=values, indices=indices)
    indices, values = latent_indices(values, indices, d_sae), values.detach()
    if not values.isfinite().all():
        raise LightsaeError("values must be finite")
    return values, indices, d_sae


def after(
    values: Code, indices: Tensor | None, other: Tensor | None, name: str
) -> tuple[Tensor | None, Tensor]:
    """Indices and the argument behind them; behind a code, that one may come second.

    Args:
        values: A code, or activations.
        indices: Latents; beside a code and without `other`, that is what it is.
        other: The argument behind them.
        name: What the message calls it.

    Raises:
        LightsaeError: If the argument is missing.
    """
    if isinstance(values, SparseCode) and other is None:
        indices, other = None, indices
    elif indices is None and not isinstance(values, SparseCode):
        raise LightsaeError("indices is missing: give values and indices, or a SparseCode")
    return indices, required(name, other)


def both_after(
    values: Code, indices: Tensor | None, one: Tensor | None, two: Tensor | None, names: str
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Indices and two arguments behind them; behind a code, those may come one place earlier.

    Args:
        values: A code, or activations.
        indices: Latents; beside a code and without `two`, that is `one`.
        one: The first argument behind them.
        two: The second.
        names: What the message calls them, such as "sample_index patch_index".

    Raises:
        LightsaeError: If one is missing.
    """
    if isinstance(values, SparseCode) and indices is not None and two is None:
        indices, one, two = None, indices, one
    first, second = names.split()
    indices, one = after(values, indices, one, first)
    return indices, one, required(second, two)


def of_rows(
    values: Code, indices: Tensor | None, other: Tensor | None, name: str, d_sae: int | None
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Values, indices, an integer for each row and d_sae; the integer as int64, not spread.

    Args:
        values: A code, or activations [rows, k], or [entries] with one latent each.
        indices: Latents of that shape; not beside a code.
        other: An integer of each row or entry; behind a code it may come second.
        name: What the message calls it.
        d_sae: Number of latents; that of a code where left out.

    Raises:
        LightsaeError: If they do not fit together.

    Example:
        >>> import torch
        >>> code = SparseCode(torch.ones(1, 1), torch.tensor([[3]]), d_sae=4)
        >>> of_rows(code, None, torch.tensor([7]), "sample_index", None)
        (tensor([[1.]]), tensor([[3]]), tensor([7]), 4)
    """
    indices, other = after(values, indices, other, name)
    values, indices, d_sae = unpacked(values, indices, d_sae)
    require_tensors(values=values, **{name: other})
    if values.ndim not in (1, 2) or other.shape != values.shape[:1]:
        raise LightsaeError(
            f"values, indices and {name} have shapes {list(values.shape)}, "
            f"{list(indices.shape)} and {list(other.shape)}, expected [rows, k] twice and "
            "[rows], or [entries] for all three"
        )
    return values, indices, integers(name, other), d_sae


def spread(per_row: Tensor, values: Tensor) -> Tensor:
    """Numbers of rows as numbers of entries, of the shape of values [rows, k] or [entries].

    Example:
        >>> import torch
        >>> spread(torch.tensor([7, 8]), torch.ones(2, 2))
        tensor([[7, 7],
                [8, 8]])
    """
    return per_row.unsqueeze(1).expand_as(values) if values.ndim == 2 else per_row


def required(name: str, given: _T | None) -> _T:
    """An argument that only a code makes superfluous.

    Example:
        >>> required("d_sae", None)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: d_sae is missing
    """
    if given is None:
        raise LightsaeError(f"{name} is missing")
    return given


def size(name: str, given: SupportsIndex) -> int:
    """A size, refused if it is none.

    Example:
        >>> size("n", 0)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: n = 0, expected at least 1
    """
    if not hasattr(given, "__index__"):
        raise LightsaeError(f"{name} = {given!r}, expected an integer of at least 1")
    if index(given) < 1:
        raise LightsaeError(f"{name} = {given}, expected at least 1")
    return index(given)


def require_tensors(**given: object) -> None:
    """Refuse what is no tensor, and tensors on several devices.

    Example:
        >>> require_tensors(x=[1.0])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: x is a list, expected a tensor
    """
    for name, thing in given.items():
        if not isinstance(thing, Tensor):
            kind = type(thing)
            package = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            raise LightsaeError(f"{name} is a {package}{kind.__name__}, expected a tensor")
    (first, leader), *others = cast("dict[str, Tensor]", given).items()
    for name, tensor in others:
        if tensor.device != leader.device:
            raise LightsaeError(f"{first} is on {leader.device} but {name} is on {tensor.device}")


def pair_keys(rows: Tensor, columns: Tensor, n_rows: int, n_columns: int, legend: str) -> Tensor:
    """Each (row, column) as the one integer row * n_columns + column.

    Args:
        rows: In [0, n_rows), int64. Arbitrary numbers, such as sample indices, are replaced by
            their position among the distinct ones first.
        columns: In [0, n_columns), int64.
        n_rows: Number of rows.
        n_columns: Number of columns.
        legend: What the message calls the two numbers.

    Raises:
        LightsaeError: If there are more pairs than int64 can count.

    Example:
        >>> import torch
        >>> pair_keys(torch.tensor([2]), torch.tensor([1]), 3, 10, "3 rows and 10 columns")
        tensor([21])
    """
    if n_rows * n_columns > iinfo(int64).max:
        raise LightsaeError(f"{legend}: more pairs than int64 can count")
    return rows * n_columns + columns
