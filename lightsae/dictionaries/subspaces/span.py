"""The span of a set of directions, and its effective rank."""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors


def span(directions: Tensor, energy: float = 1.0) -> Tensor:
    """An orthonormal basis of the span of some directions, or of what holds most of them.

    By singular values of the directions as they are, uncentred. What float32 cannot tell from 0 is
    no dimension: values up to max(m, d) eps times the largest.

    Args:
        directions: Such as rows of W_dec, [m, d].
        energy: Share of the summed squared singular values that the basis is to hold, in (0, 1];
            1 is the whole span. As few dimensions as hold it.

    Returns:
        Orthonormal rows, the principal ones first, [r, d] float64 on the CPU; r is 0 where all
        directions are 0 or there is none.

    Raises:
        LightsaeError: If they are no finite matrix, or energy is no such share.

    Example:
        >>> span(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).shape
        torch.Size([2, 3])
        >>> span(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), energy=0.9).abs()
        tensor([[1., 0., 0.]], dtype=torch.float64)
    """
    if not 0 < energy <= 1:
        raise LightsaeError(f"energy = {energy}, expected a share in (0, 1]")
    rows = _checked(directions)
    if rows.numel() == 0:
        return rows.new_zeros(0, rows.shape[1])
    energies, basis = _spectrum(rows)
    slack = max(rows.shape) * torch.finfo(torch.float32).eps
    kept = energies > energies[0] * slack**2
    if energy < 1:
        held = energies.cumsum(dim=0)
        # A dimension counts unless those before it hold enough already.
        kept &= (held - energies) < energy * held[-1] * (1 - 1e-12)
    found: Tensor = basis[: int(kept.sum())]
    return found


def effective_rank(directions: Tensor) -> float:
    """Over how many dimensions directions spread: the exponential of an entropy.

    `exp(-sum_i p_i ln p_i)` with p_i = s_i^2 / sum_j s_j^2 of the singular values s. After Roy &
    Vetterli (2007), who take s_i / sum_j s_j for p_i; squared, as here (ours), the p_i are shares
    of energy, and a value at the level of rounding counts for nothing.

    Args:
        directions: [m, d].

    Returns:
        From 1 to min(m, d); 0 where all are 0 or there is none.

    Raises:
        LightsaeError: If they are no finite matrix.

    Example:
        >>> round(effective_rank(torch.eye(5)[:3]), 6), round(effective_rank(torch.ones(4, 5)), 6)
        (3.0, 1.0)
    """
    shares = _energy_shares(directions)
    return float(torch.special.entr(shares).sum().exp()) if len(shares) else 0.0


def participation_ratio(directions: Tensor) -> float:
    """Over how many dimensions directions spread: `(sum_i s_i^2)^2 / sum_i s_i^4`.

    It is at most the effective rank, which small singular values move more.

    Args:
        directions: [m, d].

    Returns:
        From 1 to min(m, d); 0 where all are 0 or there is none.

    Raises:
        LightsaeError: If they are no finite matrix.

    Example:
        >>> round(participation_ratio(torch.eye(5)[:3]), 6)
        3.0
    """
    shares = _energy_shares(directions)
    return float(1 / shares.square().sum()) if len(shares) else 0.0


def _energy_shares(directions: Tensor) -> Tensor:
    rows = _checked(directions)
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    energies: Tensor = torch.linalg.eigvalsh(gram).clamp_min(0)
    total = energies.sum()
    return energies / total if total > 0 else energies[:0]


def _spectrum(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending, and the right singular vectors as rows."""
    if len(rows) <= rows.shape[1]:
        _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
        return values.square(), vectors
    energies, columns = torch.linalg.eigh(rows.T @ rows)
    return energies.flip(0).clamp_min(0), columns.T.flip(0)


def _checked(directions: Tensor) -> Tensor:
    """Directions in float64, of a size whose squares are in its range."""
    require_tensors(directions=directions)
    rows = directions.detach().cpu().double()
    if rows.ndim != 2 or not rows.isfinite().all():
        raise LightsaeError(f"directions are {list(rows.shape)}, expected finite numbers [m, d]")
    largest = rows.abs().max() if rows.numel() else rows.new_zeros(())
    return rows / largest if largest > 0 else rows
