"""The most parallel direction of another dictionary, in blocks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightsae.dictionaries.matching.nearest import LargestSoFar, Nearest
from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors

# Rows of the two sides of a block of cosines: 32 MiB of float32.
_ROWS, _OTHERS = 1024, 8192


def nearest_cosines(W: Tensor, others: Tensor) -> Nearest:
    """Of each direction the most parallel one of another dictionary, and its cosine.

    `max_j cos(w_i, o_j)`, signed: opposite directions are not the same latent. Many may have the
    same nearest one; `match_one_to_one` gives each a partner of its own. In blocks, so the n m
    cosines are never held at once; in float64 where one side is, else in float32. A row of zeros
    has no direction: it has no nearest one, and is nobody's.

    Args:
        W: Directions, such as decoder rows [n, d].
        others: Directions of the other dictionary [m, d].

    Raises:
        LightsaeError: If they are no such matrices, differ in width or are not finite.

    Example:
        >>> W = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
        >>> nearest_cosines(W, torch.tensor([[3.0, 4.0], [0.0, 5.0], [4.0, 3.0]]))
        Nearest(similarity=tensor([ 0.8000, -0.6000]), index=tensor([2, 2]))
    """
    require_directions(W=W, others=others)
    found = LargestSoFar(len(W), common_dtype(W, others), W.device)
    for block in cosine_blocks(W, others):
        found.put_rows(*block)
    return found.nearest()


def nearest_both_ways(W: Tensor, others: Tensor) -> tuple[Nearest, Nearest]:
    """`nearest_cosines(W, others)` and `nearest_cosines(others, W)` from one product.

    Args:
        W: Directions [n, d].
        others: Directions of the other dictionary [m, d].

    Returns:
        The nearest of each of `W` among `others` [n], and of each of `others` among `W` [m].

    Raises:
        LightsaeError: As `nearest_cosines`.

    Example:
        >>> W = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
        >>> there, back = nearest_both_ways(W, torch.tensor([[3.0, 4.0], [0.0, 5.0], [4.0, 3.0]]))
        >>> there.index, back.index
        (tensor([2, 2]), tensor([0, 0, 0]))
    """
    require_directions(W=W, others=others)
    dtype = common_dtype(W, others)
    there, back = (LargestSoFar(len(each), dtype, W.device) for each in (W, others))
    for block in cosine_blocks(W, others):
        there.put_rows(*block)
        back.put_columns(*block)
    return there.nearest(), back.nearest()


@torch.no_grad()
def cosine_blocks(W: Tensor, others: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and their cosines, -inf beside a row of zeros.

    Every row meets its columns in ascending order, and every column its rows.

    Args:
        W: Directions [n, d], finite.
        others: Directions of the other dictionary [m, d], finite.

    Example:
        >>> W, others = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 9.0]])
        >>> next(cosine_blocks(W, others))
        (slice(0, 1, None), slice(0, 2, None), tensor([[  -inf, 0.8000]]))
    """
    dtype = common_dtype(W, others)
    for first in range(0, len(others), _OTHERS):
        unit_others, absent_others = _unit(others[first : first + _OTHERS].to(dtype))
        for start in range(0, len(W), _ROWS):
            unit, absent = _unit(W[start : start + _ROWS].to(dtype))
            cosines = (unit @ unit_others.T).clamp_(-1, 1)
            cosines[absent] = -torch.inf
            cosines[:, absent_others] = -torch.inf
            yield slice(start, start + len(unit)), slice(first, first + len(unit_others)), cosines


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit norm, and the indices of those without a direction, which stay zeros."""
    # By its largest entry first: squares of tiny or huge ones leave the range of floats.
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True)
    rows = rows / largest.where(largest > 0, 1)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(norms.where(norms > 0, 1)), (largest[:, 0] == 0).nonzero()[:, 0]


def common_dtype(W: Tensor, others: Tensor) -> torch.dtype:
    """In which dtype cosines are taken.

    Example:
        >>> common_dtype(torch.ones(1).half(), torch.ones(1))
        torch.float32
    """
    return torch.float64 if torch.float64 in (W.dtype, others.dtype) else torch.float32


def require_directions(**matrices: Tensor) -> None:
    """Raise on what is no pair of finite matrices of one width.

    Example:
        >>> require_directions(W=torch.ones(2, 3), others=torch.ones(2, 4))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: directions differ in width: W 3 and others 4
    """
    widths = []
    for name, each in matrices.items():
        if not isinstance(each, Tensor):
            raise LightsaeError(f"{name} is a {type(each).__name__}, expected a tensor")
        if each.ndim != 2 or not each.shape[1] or not each.is_floating_point():
            told = f"{each.dtype} {list(each.shape)}"
            raise LightsaeError(f"{name} is {told}, expected floats [latents, width]")
        if not each.isfinite().all():
            raise LightsaeError(f"{name} must be finite")
        widths.append(each.shape[1])
    if len(set(widths)) > 1:
        pair = " and ".join(f"{name} {w}" for name, w in zip(matrices, widths, strict=True))
        raise LightsaeError(f"directions differ in width: {pair}")
    require_tensors(**matrices)
