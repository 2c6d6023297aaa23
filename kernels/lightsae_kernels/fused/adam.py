"""Adam, projection of the gradient, unit norm of the rows and a narrow copy, in one pass.

    g <- g - (g . w / w . w) w                           if PROJECT
    m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
    w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
    w <- w / ||w||                                       if NORMALIZE and m is not 0

A row whose gradient and moments are all 0 would stay as it is: neither it nor its moments are
written, and w is read only for the copy. Nor is anything written while the device's fault is set
(`lightsae_kernels.fault_flags`). Arithmetic is in float32, whatever the tensors are.

Moments in 8 bits are read and written as `lightsae_kernels.quantized_moments` defines them; scales
[N, ceil(D / 256)].

Shapes: param, grad, exp_avg, exp_avg_sq and copy [N, D] (the last row may be short), step [].
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.graph import increment_version

from lightsae_kernels.fault_flags import fault_on
from lightsae_kernels.fused.tile_configs import programs
from lightsae_kernels.quantized_moments import BLOCK, GOLDEN, MIX_1, MIX_2
from lightsae_kernels.types import AdamSettings, Moment, Quantized

WIDEST = 8192
# A vector, or what is wider without its rows mattering, is cut into rows of this width.
VECTOR = 1024
_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_BLOCK = tl.constexpr(BLOCK)
_MIX_1, _MIX_2, _GOLDEN = (tl.constexpr(word) for word in (MIX_1, MIX_2, GOLDEN))


@triton.jit
def bias_correction(step, log_beta):
    """1 - beta^step, to float32 where beta^step is close to 1 too."""
    x = step * log_beta
    near = tl.maximum(x, -0.5)
    series = 1 + near / 7 * (1 + near / 8)
    for term in tl.static_range(5):
        series = 1 + near / (6 - term) * series
    return tl.where(x > -0.5, -near * series, 1 - tl.exp(x))


@triton.jit
def fourth(x):
    """x^4."""
    square = x * x
    return square * square


@triton.jit
def mix(x):
    """Scatter uint32."""
    x = (x ^ (x >> 16)) * _MIX_1
    x = (x ^ (x >> 13)) * _MIX_2
    return x ^ (x >> 16)


@triton.jit
def dither(step, row, column):
    """Numbers in [0, 1) for rows [R, 1] and columns [1, D] of a step, as `quantized.dither`."""
    key = (step + 0 * column.to(tl.float32)).to(tl.uint32) * _GOLDEN
    of_column = mix((key + column.to(tl.uint32)) ^ 0xFFFFFFFF)
    key = (step + 0 * row.to(tl.float32)).to(tl.uint32) * _GOLDEN
    of_row = mix(key + row.to(tl.uint32))
    return ((of_row + of_column) >> 8).to(tl.float32) * (1 / 16777216)


@triton.jit
def dequantize(codes, scales, LEVELS: tl.constexpr):
    """Values of codes [R, D] with a scale for each block of D, [R, D / width]."""
    SHAPE: tl.constexpr = (scales.shape[0], scales.shape[1], codes.shape[1] // scales.shape[1])
    spread = tl.reshape(tl.broadcast_to(scales[:, :, None], SHAPE), codes.shape)
    x = fourth(codes / LEVELS) * spread
    return tl.where(codes < 0, -x, x)


@triton.jit
def quantize(x, u, BLOCKS: tl.constexpr, SIGNED: tl.constexpr):
    """Codes [R, D] of x and the scale of each of BLOCKS blocks of D; u decides up or down."""
    LEVELS: tl.constexpr = 127 if SIGNED else 255
    SHAPE: tl.constexpr = (x.shape[0], BLOCKS, x.shape[1] // BLOCKS)
    size = tl.abs(x)
    size = tl.where(size == float("inf"), 3.4028234663852886e38, size)
    scales = tl.max(tl.reshape(size, SHAPE), axis=2)
    divisor = tl.where(scales > 0, scales, 1.0)
    divisor = tl.reshape(tl.broadcast_to(divisor[:, :, None], SHAPE), x.shape)
    ratio = size / divisor
    codes = tl.minimum(tl.floor(tl.sqrt(tl.sqrt(ratio)) * LEVELS), LEVELS - 1)
    below, above = fourth(codes / LEVELS), fourth((codes + 1) / LEVELS)
    codes += (u < (ratio - below) / (above - below)).to(tl.float32)
    if SIGNED:
        return tl.where(x < 0, -codes, codes), scales
    return tl.where(x > 0, tl.maximum(codes, 1.0), 0.0), scales


@triton.jit
def adam_step_kernel(
    param_ptr,
    grad_ptr,
    exp_avg_ptr,
    exp_avg_sq_ptr,
    scale_ptr,
    scale_sq_ptr,
    copy_ptr,
    step_ptr,
    fault_ptr,
    lr,
    SIZE,
    D,
    beta1,
    rest1,
    log_beta1,
    beta2,
    rest2,
    log_beta2,
    eps,
    weight_decay,
    LR_IS_TENSOR: tl.constexpr,
    PROJECT: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DECAY: tl.constexpr,
    DECOUPLED: tl.constexpr,
    COPY: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_B whole rows."""
    if LR_IS_TENSOR:
        lr = tl.load(lr).to(tl.float32)
    step = tl.load(step_ptr)
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    at = row * D + d
    # Where an operation met NaN or inf, nothing is read and nothing is written.
    inside = (d < D) & (at < SIZE) & (tl.load(fault_ptr) == 0)
    g = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    m = tl.load(exp_avg_ptr + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(exp_avg_sq_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if QUANTIZED:
        BLOCKS: tl.constexpr = (BLOCK_D + _BLOCK - 1) // _BLOCK
        in_row = tl.cdiv(D, _BLOCK)
        block = tl.arange(0, BLOCKS)[None, :]
        at_scale = row * in_row + block  # [BLOCK_B, BLOCKS]
        scaled = (block < in_row) & (row * D < SIZE) & (tl.load(fault_ptr) == 0)
        m = dequantize(m, tl.load(scale_ptr + at_scale, mask=scaled, other=0.0), 127)
        v = dequantize(v, tl.load(scale_sq_ptr + at_scale, mask=scaled, other=0.0), 255)
    if DECAY:
        touched = inside
    else:
        nonzero = ((g != 0) | (m != 0) | (v != 0)).to(tl.int32)
        moving = tl.max(nonzero, axis=1, keep_dims=True) > 0
        touched = inside & moving
        if QUANTIZED:
            scaled = scaled & moving
    w = tl.load(param_ptr + at, mask=inside if COPY else touched, other=0.0).to(tl.float32)
    if PROJECT:
        square = tl.maximum(tl.sum(w * w, axis=1, keep_dims=True), _TINY)
        g -= tl.sum(g * w, axis=1, keep_dims=True) / square * w
    if DECAY and not DECOUPLED:
        g += weight_decay * w
    if DECAY and DECOUPLED:
        w *= 1 - lr * weight_decay
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    root = tl.sqrt(v / bias_correction(step, log_beta2)) + eps
    # With an eps of 0 what is not there would be 0 / 0, and the norm with it.
    w -= lr / bias_correction(step, log_beta1) * (m / tl.where(touched, root, 1.0))
    if NORMALIZE:
        norm = tl.maximum(tl.sqrt(tl.sum(w * w, axis=1, keep_dims=True)), _TINY)
        if not (DECAY and DECOUPLED):
            moved = tl.max((m != 0).to(tl.int32), axis=1, keep_dims=True) > 0
            norm = tl.where(moved, norm, 1.0)
        w /= norm
    w = w.to(param_ptr.dtype.element_ty)
    tl.store(param_ptr + at, w, mask=touched)
    if QUANTIZED:
        u = dither(step, row, d)
        m, scales = quantize(m, u, BLOCKS, True)
        tl.store(scale_ptr + at_scale, scales, mask=scaled)
        v, scales = quantize(v, u, BLOCKS, False)
        tl.store(scale_sq_ptr + at_scale, scales, mask=scaled)
    tl.store(exp_avg_ptr + at, m.to(exp_avg_ptr.dtype.element_ty), mask=touched)
    tl.store(exp_avg_sq_ptr + at, v.to(exp_avg_sq_ptr.dtype.element_ty), mask=touched)
    if COPY:
        tl.store(copy_ptr + at, w.to(copy_ptr.dtype.element_ty), mask=inside)


def adam_programs(D: int, device: torch.device) -> tuple[int, int, int]:
    """Rows, columns and warps of a program: a whole row up to 8192, several narrow ones.

    Example:
        >>> adam_programs(384, torch.device("cuda")), adam_programs(8192, torch.device("cuda"))
        ((2, 512, 4), (1, 8192, 16))
    """
    block = max(16, int(triton.next_power_of_2(D)))
    elements = max(block, VECTOR)
    rows, warps = programs(elements, device)
    return rows * elements // block, block, warps


def adam_step_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    step: Tensor,
    settings: AdamSettings,
    copy: Tensor | None = None,
) -> None:
    """See `lightsae_kernels.adam_step_`."""
    lr, (beta1, beta2), eps, decay, decoupled, project, normalize = settings
    if isinstance(lr, Tensor) and lr.device != param.device:
        lr = float(lr)
    D = param.shape[-1] if param.dim() > 1 and param.shape[-1] <= WIDEST else VECTOR
    rows, block, warps = adam_programs(D, param.device)
    m, m_scales = exp_avg if isinstance(exp_avg, Quantized) else (exp_avg, None)
    v, v_scales = exp_avg_sq if isinstance(exp_avg_sq, Quantized) else (exp_avg_sq, None)
    with torch.cuda.device_of(param):
        adam_step_kernel[(triton.cdiv(param.numel(), rows * D),)](
            param, grad.contiguous(), m, v, m_scales, v_scales, copy, step,
            fault_on(param.device), lr, param.numel(), D,
            beta1, 1 - beta1, _log(beta1), beta2, 1 - beta2, _log(beta2), eps, decay,
            LR_IS_TENSOR=isinstance(lr, Tensor), PROJECT=project, NORMALIZE=normalize,
            DECAY=decay != 0, DECOUPLED=decoupled, COPY=copy is not None,
            QUANTIZED=m_scales is not None, BLOCK_B=rows, BLOCK_D=block, num_warps=warps,
        )  # fmt: skip
    # Autograd sees no write through a pointer, and would take what was saved for what is there.
    written = (param, m, v, m_scales, v_scales, copy)
    increment_version([t for t in written if t is not None and not t.is_inference()])


def _log(beta: float) -> float:
    """A beta of 0 is no power of e: what stands for it vanishes in float32."""
    return math.log(beta) if beta > 0 else -200.0
