"""What is given, checked: two codes of the same rows, shares."""

from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import unpacked
from lightsae.sae.sparse_code import SparseCode

Entries = tuple[Tensor, Tensor]


def code_pair(
    code: SparseCode, other: SparseCode, d_sae: int, d_other: int
) -> tuple[Entries, Entries]:
    """Values and indices [rows, k] of two codes of the same rows.

    Raises:
        LightsaeError: If they are none, are not of dictionaries of these sizes, or hold what is
            not finite.

    Example:
        >>> import torch
        >>> code = SparseCode(torch.ones(2, 1), torch.tensor([[3], [0]]), d_sae=4)
        >>> code_pair(code, code, 4, 5)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: other has d_sae = 4, expected 5
    """
    pair = _entries("code", code, d_sae), _entries("other", other, d_other)
    if len(code) != len(other):
        raise LightsaeError(
            f"code has {len(code)} rows and other {len(other)}, expected the same rows"
        )
    return pair


def _entries(name: str, code: SparseCode, d_sae: int) -> Entries:
    if not isinstance(code, SparseCode):
        raise LightsaeError(f"{name} is a {type(code).__name__}, expected a SparseCode")
    if code.d_sae != d_sae:
        raise LightsaeError(f"{name} has d_sae = {code.d_sae}, expected {d_sae}")
    values, indices, _ = unpacked(code, None, None)
    if values.ndim != 2:
        raise LightsaeError(f"{name} has shape {list(values.shape)}, expected [rows, k]")
    return values, indices


def firing(entries: Entries) -> Entries:
    """Row and latent of each activation that is positive [entries].

    Example:
        >>> import torch
        >>> firing((torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 0]])))
        (tensor([0]), tensor([3]))
    """
    values, indices = entries
    rows, places = (values > 0).nonzero(as_tuple=True)
    return rows, indices[rows, places]


def share(name: str, given: float) -> float:
    """A share above 0, or a cosine of directions that are alike.

    Example:
        >>> share("coverage", 80)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: coverage = 80, expected above 0 and at most 1
    """
    if not 0 < given <= 1:
        raise LightsaeError(f"{name} = {given}, expected above 0 and at most 1")
    return given
