"""Energy of a task vector on a span of directions, beside that on random subspaces."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.subspaces.overlap import quantiles, random_basis
from lightsae.dictionaries.subspaces.span import span
from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.task_vector import TaskVector

Side = Literal["output", "input"]
# Modules that read the residual stream, as timm, torch, transformers and diffusers name them.
_READING = {"q", "k", "v", "query", "key", "value"}
_READING |= {f"{letter}_proj" for letter in "qkv"} | {f"to_{letter}" for letter in "qkv"}


class EnergyKept(NamedTuple):
    """Share of a layer's energy that a projection keeps.

    Attributes:
        kept: ||P dW||_F^2 / ||dW||_F^2 over the layer's matrices.
        baseline: r / d, what a random subspace of that rank keeps in expectation.
        low: 2.5% quantile of what random subspaces keep.
        high: 97.5% quantile.
        rank: r, dimensions of the span.
        d: Width of the residual stream.
    """

    kept: float
    baseline: float
    low: float
    high: float
    rank: int
    d: int


def orthonormal_basis(directions: Tensor) -> Tensor:
    """A basis of the span of some directions, by singular values.

    Args:
        directions: Such as rows of W_dec, [m, d].

    Returns:
        Orthonormal rows, [r, d] float64 on the CPU; r is the rank. The lengths of the directions do
        not matter, unless they are 0.

    Raises:
        LightsaeError: If they are no matrix, not finite, or all 0.

    Example:
        >>> orthonormal_basis(torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])).shape
        torch.Size([1, 3])
    """
    rows = directions.detach().cpu().double()
    if rows.ndim != 2 or not rows.isfinite().all():
        raise LightsaeError(f"directions are {list(rows.shape)}, expected finite numbers [m, d]")
    found = span(torch.nn.functional.normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny))
    if len(found) == 0:
        raise LightsaeError("directions span nothing, expected one that is not 0")
    return found


def residual_side(name: str, weight: Tensor, d: int) -> Side | None:
    """Which side of a weight lies in the residual stream.

    Args:
        name: Of the weight.
        weight: As of nn.Linear or a convolution, [out, in, ...]. Of transformers' Conv1D (GPT-2),
            which is [in, out], square weights get the wrong side.
        d: Width of the residual stream.

    Returns:
        "output" where the weight writes d values, else "input" where it reads them; None of
        vectors: of a bias and of a norm's gain the shape does not tell which it is. Of a square
        weight "input" where its module is named as a query, key or value, such as `q_proj`: what
        these write are heads.

    Raises:
        LightsaeError: If neither side has d values.

    Example:
        >>> residual_side("fc2", torch.ones(4, 16), 4), residual_side("qkv", torch.ones(12, 4), 4)
        ('output', 'input')
    """
    if weight.ndim < 2:
        return None
    module = name.rpartition(".")[0].rpartition(".")[2]
    reads = weight.shape[1] == d and module in _READING
    if weight.shape[0] == d and not reads:
        return "output"
    if weight.shape[1] == d:
        return "input"
    raise LightsaeError(f"{name} is {list(weight.shape)}, expected a side of d_in = {d}")


def energy_kept(
    changes: Mapping[str, Tensor], basis: Tensor, *, draws: int = 200, seed: int = 0
) -> EnergyKept:
    """How much of a layer's task vector lies in a span (arXiv 2605.28649).

    Ours: beside r / d, the spread of uniformly random subspaces of that rank on the same weights.

    Args:
        changes: Of each weight its change; matrices count, on their `residual_side`.
        basis: Orthonormal rows, [r, d].
        draws: Random subspaces.
        seed: Of them.

    Raises:
        LightsaeError: If a matrix has no side of d values, or nothing changed.

    Example:
        >>> change = torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0]))
        >>> found = energy_kept({"w": change}, torch.eye(4, dtype=torch.float64)[:1])
        >>> found.kept, found.baseline
        (0.9, 0.25)
    """
    if draws < 2:
        raise LightsaeError(f"draws is {draws}, expected 2 or more")
    rank, d = basis.shape
    gram = _gram(changes, d)
    total = gram.trace()
    if not total > 0:
        raise LightsaeError("no matrix of the layer changed: it has no energy")
    generator = torch.Generator().manual_seed(seed)
    shares = torch.stack([_energy(gram, random_basis(rank, d, generator)) for _ in range(draws)])
    low, high = quantiles(shares / total)
    return EnergyKept(float(_energy(gram, basis) / total), rank / d, low, high, rank, d)


def projected(vector: TaskVector, bases: Mapping[str, Tensor]) -> TaskVector:
    """The task vector filtered: in each layer the part that lies in its span.

    Args:
        vector: The raw one.
        bases: Of each layer orthonormal rows, [r, d].

    Returns:
        Projected matrices of these layers; vectors, such as biases, have no side and are left out.

    Raises:
        LightsaeError: If there is no such layer or a matrix has no side of d values.

    Example:
        >>> vector = TaskVector({"0.weight": torch.ones(2, 3)}, {"0": ("0.weight",)})
        >>> projected(vector, {"0": torch.tensor([[1.0, 0.0]])}).changes["0.weight"].tolist()
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    found = {}
    for layer, basis in bases.items():
        for name in vector.names([layer]):
            change = vector.changes[name]
            side = residual_side(name, change, basis.shape[1])
            if side is not None:
                found[name] = _projected(change, basis, side)
    return vector.with_changes(found)


def _projected(change: Tensor, basis: Tensor, side: Side) -> Tensor:
    axis = 0 if side == "output" else 1
    basis = basis.to(change.device, torch.float64)
    moved = change.double().movedim(axis, -1)
    return (moved @ basis.T @ basis).movedim(-1, axis).to(change.dtype).contiguous()


def _gram(changes: Mapping[str, Tensor], d: int) -> Tensor:
    """Sum of dW dW^T along the residual stream, [d, d] float64."""
    gram = torch.zeros(d, d, dtype=torch.float64)
    for name, change in changes.items():
        side = residual_side(name, change, d)
        if side is not None:
            moved = change.detach().cpu().double().movedim(0 if side == "output" else 1, 0)
            rows = moved.reshape(d, -1)
            gram += rows @ rows.T
    return gram


def _energy(gram: Tensor, basis: Tensor) -> Tensor:
    """||P dW||_F^2."""
    return ((basis.to(gram) @ gram) * basis.to(gram)).sum()
