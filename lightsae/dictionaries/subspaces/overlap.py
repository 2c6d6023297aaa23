"""How far two subspaces are the same, beside random ones of their ranks."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors

_LEVEL = 0.95


def subspace_overlap(A: Tensor, B: Tensor) -> float:
    """Share of the smaller of two subspaces that lies in the larger.

    `||U_A^T U_B||_F^2 / r` of their orthonormal bases, the mean squared cosine of the principal
    angles. Ours: r is the smaller rank, so that 1 says that one lies in the other.

    Args:
        A: Orthonormal rows, [r_A, d], such as `span` gives.
        B: Likewise, [r_B, d].

    Returns:
        From 0 to 1; NaN if one of them has no dimensions.

    Raises:
        LightsaeError: If they are no orthonormal rows of one width.

    Example:
        >>> subspace_overlap(torch.eye(4)[:2], torch.eye(4)[1:4])
        0.5
    """
    return overlap_of_bases(*_bases(A, B))


def overlap_of_bases(A: Tensor, B: Tensor) -> float:
    """`subspace_overlap` of rows that are known to be orthonormal, float64.

    Example:
        >>> overlap_of_bases(torch.eye(4)[:2], torch.eye(4)[1:4])
        0.5
    """
    rank = min(len(A), len(B))
    return min(float((A @ B.T).square().sum()) / rank, 1.0) if rank else float("nan")


def principal_angles(A: Tensor, B: Tensor) -> Tensor:
    """Principal angles between two subspaces.

    By the sines as well as the cosines, so that small angles are exact too (Bjorck & Golub 1973).

    Args:
        A: Orthonormal rows, [r_A, d].
        B: Likewise, [r_B, d].

    Returns:
        Ascending, in radians from 0 to pi / 2, [min(r_A, r_B)] float64.

    Raises:
        LightsaeError: If they are no orthonormal rows of one width.

    Example:
        >>> line = torch.tensor([[0.8, 0.6]], dtype=torch.float64)
        >>> principal_angles(torch.eye(2)[:1], line).rad2deg().round()
        tensor([37.], dtype=torch.float64)
    """
    small, large = sorted(_bases(A, B), key=len)
    cosines = torch.linalg.svdvals(small @ large.T).clamp(0, 1)
    sines = torch.linalg.svdvals(small - (small @ large.T) @ large).flip(0).clamp(0, 1)
    sines = torch.nn.functional.pad(sines, (len(small) - len(sines), 0))[: len(cosines)]
    return torch.where(cosines.square() < 0.5, cosines.acos(), sines.asin())


def random_basis(rank: int, d: int, generator: torch.Generator) -> Tensor:
    """A basis of a uniformly random subspace.

    Args:
        rank: Its dimensions, at most d.
        d: Those of the space.
        generator: On the CPU.

    Returns:
        Orthonormal rows, [rank, d] float64.

    Example:
        >>> basis = random_basis(2, 5, torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(basis @ basis.T, torch.eye(2, dtype=torch.float64)))
        True
    """
    columns = torch.randn(d, rank, dtype=torch.float64, generator=generator)
    rows: Tensor = torch.linalg.qr(columns).Q.T
    return rows


class RandomOverlap(NamedTuple):
    """Overlap of uniformly random subspaces.

    Attributes:
        expected: r_A r_B / (d r) = max(r_A, r_B) / d.
        low: 2.5% quantile of those drawn.
        high: 97.5% quantile.
    """

    expected: float
    low: float
    high: float


def random_overlap(
    rank_a: int, rank_b: int, d: int, *, draws: int = 200, seed: int = 0
) -> RandomOverlap:
    """Overlap that two unrelated subspaces of these ranks have.

    Args:
        rank_a: Dimensions of one.
        rank_b: Of the other.
        d: Of the space.
        draws: Random subspaces; one of the two suffices to be random.
        seed: Of them.

    Raises:
        LightsaeError: If a rank is not from 1 to d, or draws is smaller than 2.

    Example:
        >>> found = random_overlap(3, 6, 24)
        >>> found.expected, found.low < 0.25 < found.high
        (0.25, True)
    """
    for name, rank in (("rank_a", rank_a), ("rank_b", rank_b)):
        if not 1 <= rank <= d:
            raise LightsaeError(f"{name} = {rank}, expected from 1 to d = {d}")
    if draws < 2:
        raise LightsaeError(f"draws = {draws}, expected at least 2")
    generator = torch.Generator().manual_seed(seed)
    small, large = sorted((rank_a, rank_b))
    # Of the coordinates of a random basis of the smaller, the first are those in the larger.
    drawn = [random_basis(small, d, generator)[:, :large].square().sum() for _ in range(draws)]
    low, high = quantiles((torch.stack(drawn) / small).clamp_max(1))
    return RandomOverlap(large / d, low, high)


def quantiles(values: Tensor) -> tuple[float, float]:
    """The 2.5% and the 97.5% quantile of some numbers [n].

    Example:
        >>> [round(end, 9) for end in quantiles(torch.arange(41.0))]
        [1.0, 39.0]
    """
    ends = torch.tensor([0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2], dtype=torch.float64)
    low, high = torch.quantile(values.double(), ends).tolist()
    return low, high


def _bases(A: Tensor, B: Tensor) -> list[Tensor]:
    """Both in float64, checked."""
    wide = [_orthonormal(name, each) for name, each in (("A", A), ("B", B))]
    if wide[0].shape[1] != wide[1].shape[1]:
        told = " and ".join(str(each.shape[1]) for each in wide)
        raise LightsaeError(f"A and B have d = {told}, expected one width")
    return wide


def _orthonormal(name: str, basis: Tensor) -> Tensor:
    require_tensors(**{name: basis})
    rows = basis.detach().cpu().double()
    if rows.ndim != 2:
        raise LightsaeError(f"{name} is {list(rows.shape)}, expected orthonormal rows [r, d]")
    if not torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype), atol=1e-5):
        raise LightsaeError(f"the rows of {name} are not orthonormal; span(...) makes them so")
    return rows
