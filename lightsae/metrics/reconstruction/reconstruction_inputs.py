"""Reconstructions and inputs as metrics take them: by name, of one shape."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors

# Numbers per block on a CPU: their float64 copies stay in cache.
_BLOCK = 2**15

_P = ParamSpec("_P")
_T = TypeVar("_T")


def by_name(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """Refuse x_hat and x by position: in the other order the result would be wrong."""
    by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD
    taken = [p for p in inspect.signature(call).parameters.values() if p.kind == by_position]

    @wraps(call)
    def named(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if len(args) > len(taken):
            raise LightsaeError(
                f"{call.__qualname__} takes x_hat and x by name, as x_hat=..., x=...: in the other "
                "order the result would be wrong without a word"
            )
        return call(*args, **kwargs)

    return named


def matching_rows(x_hat: Tensor, x: Tensor, d_in: int | None = None) -> tuple[Tensor, Tensor]:
    """Reconstructions and inputs as [rows, d_in], detached.

    Args:
        x_hat: Reconstructions [..., d_in].
        x: Inputs [..., d_in].
        d_in: The width they must have; None for any.

    Raises:
        LightsaeError: If they are no tensors, the shapes differ or the width is another.

    Example:
        >>> import torch
        >>> x_hat, x = matching_rows(torch.zeros(2, 3, 4), torch.ones(2, 3, 4))
        >>> x_hat.shape
        torch.Size([6, 4])
    """
    require_tensors(x_hat=x_hat, x=x)
    width = width_of(x)
    if x_hat.shape != x.shape:
        raise LightsaeError(f"x_hat has shape {list(x_hat.shape)}, expected x's {list(x.shape)}")
    if d_in not in (None, width):
        raise LightsaeError(f"x has width {width}, expected d_in = {d_in}")
    return x_hat.detach().reshape(-1, width), x.detach().reshape(-1, width)


def width_of(x: Tensor) -> int:
    """d_in of inputs [..., d_in].

    Raises:
        LightsaeError: If they have none.

    Example:
        >>> import torch
        >>> width_of(torch.zeros(3, 4))
        4
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        raise LightsaeError(f"x has shape {list(x.shape)}, expected [..., d_in]")
    return x.shape[-1]


def row_blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Rows [rows, d_in] in parts that a CPU keeps in cache, at least one; a GPU has them all.

    Example:
        >>> import torch
        >>> [len(block) for block in row_blocks(torch.zeros(5, 2**14))]
        [2, 2, 1]
    """
    return x.split(max(1, _BLOCK // x.shape[1])) if x.is_cpu else (x,)


def wide_copy(x: Tensor) -> Tensor:
    """A contiguous float64 copy, to be written over.

    Example:
        >>> x = torch.zeros(2, dtype=torch.float64)
        >>> wide_copy(x).add_(1), x
        (tensor([1., 1.], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """
    return x.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
