"""Moments in 8 bits with a scale per block of a row, as in arXiv 2110.02861, coded by a formula.

    x = s (q / Q)^4, with the sign of q      s = max |x| over the block      Q = 127 or 255

The code is one of the two next to Q (|x| / s)^(1/4): the upper one if a number u in [0, 1) that
depends on row, column and step lies below the place of |x| between their values. Over the steps the
mean of what is kept is x, so a moment follows changes far smaller than the distance of two codes.
It is 0 for 0, and the largest of a block is exact; an infinite one becomes the largest number.

Nothing above 0 has the code 0 in uint8: a second moment of 0 below a first moment that is not would
make an enormous step. The smallest root of a second moment is s^(1/2) / 255^2.

Shapes: x and codes [N, D], scales [N, ceil(D / 256)]. A block never crosses a row; the last one of
a row may be short.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels.types import Moment, Quantized

BLOCK = 256
LEVELS = {torch.int8: 127, torch.uint8: 255}
# Of the finalizer of MurmurHash3, and the golden ratio.
MIX_1, MIX_2, GOLDEN = 0x85EBCA6B, 0xC2B2AE35, 0x9E3779B9
_WORD = 0xFFFFFFFF


def quantized_zeros(like: Tensor, dtype: torch.dtype) -> Quantized:
    """Codes of zeros.

    Args:
        like: Has the shape and the device, [N, D].
        dtype: int8, or uint8 for what has no sign.

    Example:
        >>> x = quantized_zeros(torch.empty(3, 600), torch.int8)
        >>> x.codes.shape, x.scales.shape
        (torch.Size([3, 600]), torch.Size([3, 3]))
    """
    codes = torch.zeros_like(like, dtype=dtype, memory_format=torch.contiguous_format)
    return Quantized(codes, codes.new_zeros(scales_shape(codes), dtype=torch.float32))


def scales_shape(codes: Tensor) -> tuple[int, ...]:
    """Of the scales that belong to codes [N, D]."""
    return (*codes.shape[:-1], -(-codes.shape[-1] // BLOCK))


def dither(step: Tensor, rows: range, D: int) -> Tensor:
    """Numbers u in [0, 1) for a step, [len(rows), D] float32: uniform over steps at every place.

    Example:
        >>> u = dither(torch.ones(()), range(2), 3)
        >>> torch.equal(u[1:], dither(torch.ones(()), range(1, 2), 3))
        True
    """
    key = (step.reshape(()).long() * GOLDEN) & _WORD
    of_row = _mix(key + torch.arange(rows.start, rows.stop, device=step.device))
    of_column = _mix(_WORD - ((key + torch.arange(D, device=step.device)) & _WORD))
    return (((of_row[:, None] + of_column) & _WORD) >> 8).float() * 2**-24


def _mix(x: Tensor) -> Tensor:
    """Scatter 32-bit numbers, kept in int64."""
    x = x & _WORD
    x = ((x ^ (x >> 16)) * MIX_1) & _WORD
    x = ((x ^ (x >> 13)) * MIX_2) & _WORD
    return x ^ (x >> 16)


def quantize_(target: Quantized, x: Tensor, u: Tensor | float = 0.5) -> None:
    """Write the codes and scales of x.

    Args:
        target: Where to.
        x: Of any floating dtype, [N, D]; not negative if the codes are uint8.
        u: In [0, 1), [N, D]; by default the nearest code is taken.

    Example:
        >>> q = quantized_zeros(torch.empty(1, 3), torch.int8)
        >>> quantize_(q, torch.tensor([[-0.5, 0.0, 8.0]]))
        >>> q.codes, q.scales
        (tensor([[-63,   0, 127]], dtype=torch.int8), tensor([[8.]]))
    """
    levels = LEVELS[target.codes.dtype]
    blocks = _blocks(x.abs().clamp_max_(torch.finfo(torch.float32).max))
    scales = blocks.amax(dim=-1)
    ratio = (blocks / torch.where(scales > 0, scales, 1.0).unsqueeze(-1)).flatten(-2)
    ratio = ratio[:, : x.shape[1]]
    codes = (ratio.sqrt().sqrt_() * levels).floor_().clamp_max_(levels - 1)
    below, above = _fourth(codes / levels), _fourth((codes + 1) / levels)
    codes += u < (ratio - below) / (above - below)
    if target.codes.dtype == torch.uint8:
        codes.clamp_min_((x > 0).to(codes.dtype))
    target.codes.copy_(codes.copysign_(x))
    target.scales.copy_(scales)


def dequantize(x: Quantized, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values that codes stand for, [N, D]."""
    codes = _blocks(x.codes.to(dtype))
    values = _fourth(codes / LEVELS[x.codes.dtype]).mul_(x.scales.unsqueeze(-1))
    values = values.copysign_(codes)
    return values.flatten(-2)[:, : x.codes.shape[1]].contiguous()


def read_moment(moment: Moment, dtype: torch.dtype) -> Tensor:
    """A moment in a floating dtype; itself if it is of that dtype."""
    return dequantize(moment, dtype) if isinstance(moment, Quantized) else moment.to(dtype)


def write_moment_(moment: Moment, value: Tensor, step: Tensor, first_row: int = 0) -> None:
    """Keep a value, whose first row is the moment's row `first_row`, in the moment's format."""
    if isinstance(moment, Quantized):
        rows = range(first_row, first_row + len(value))
        quantize_(moment, value, dither(step, rows, value.shape[1]))
    elif moment is not value:
        moment.copy_(value)


def _fourth(x: Tensor) -> Tensor:
    return x.square().square_()


def _blocks(x: Tensor) -> Tensor:
    """[N, D] as [N, blocks, 256], filled up with zeros."""
    filled: Tensor = F.pad(x, (0, -x.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    return filled
