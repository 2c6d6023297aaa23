"""Adam with projection and unit norm: torch's fused update over row blocks, no larger temporary."""

from typing import Any

import torch
from torch import Tensor

from lightsae_kernels.quantized_moments import read_moment, write_moment_
from lightsae_kernels.types import AdamSettings, Moment, Quantized

# Blocks that fit in cache cost more in calls, and in waiting for threads, than they save.
_BLOCK_ELEMENTS = 1 << 22


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
    by_rows = settings.project or settings.normalize
    if not by_rows and isinstance(exp_avg, Tensor) and isinstance(exp_avg_sq, Tensor):
        same = param.dtype == grad.dtype == exp_avg.dtype == exp_avg_sq.dtype
        if same:
            _update(param, grad, exp_avg, exp_avg_sq, step, settings)
            if copy is not None:
                copy.copy_(param)
            return
    length = max(1, _BLOCK_ELEMENTS // max(1, param.shape[1:].numel())) if param.dim() > 1 else 1
    parts = [_blocks(t, length) for t in (param, grad, exp_avg, exp_avg_sq)]
    copies = [None] * len(parts[0]) if copy is None else _blocks(copy, length)
    for number, (w, g, m, v, narrow) in enumerate(zip(*parts, copies, strict=True)):
        _step_rows(w, g, m, v, narrow, step, settings, number * length)


def _blocks(t: Moment, rows: int) -> list[Any]:
    """Blocks of rows; what has none is one row."""
    if isinstance(t, Quantized):
        return [Quantized(*block) for block in zip(*(part.split(rows) for part in t), strict=True)]
    return list((t if t.dim() > 1 else t.reshape(1, -1)).split(rows))


def _step_rows(
    param: Tensor,
    grad: Tensor,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    copy: Tensor | None,
    step: Tensor,
    settings: AdamSettings,
    first_row: int,
) -> None:
    dtype = torch.promote_types(param.dtype, torch.float32)
    w, g = param.to(dtype), grad.to(dtype)
    m, v = read_moment(exp_avg, dtype), read_moment(exp_avg_sq, dtype)
    tiny = torch.finfo(dtype).tiny
    if settings.project:
        square = torch.linalg.vector_norm(w, dim=1, keepdim=True).square_().clamp_min_(tiny)
        buffer = g * w
        along = buffer.sum(dim=1, keepdim=True).div_(square)
        g = torch.addcmul(g, along, w, value=-1, out=buffer)
    _update(w, g, m, v, step, settings)
    if settings.normalize:
        norms = torch.linalg.vector_norm(w, dim=1, keepdim=True).clamp_min_(tiny)
        if not (settings.decoupled_weight_decay and settings.weight_decay):
            # What is so small that its squares underflow moves nothing either.
            still = torch.linalg.vector_norm(m, dim=1, keepdim=True) == 0
            norms.masked_fill_(still, 1.0)
        w.div_(norms)
    if param is not w:
        param.copy_(w)
    for moment, value in ((exp_avg, m), (exp_avg_sq, v)):
        write_moment_(moment, value, step, first_row)
    if copy is not None:
        copy.copy_(param)


def _update(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: Tensor, settings: AdamSettings
) -> None:
    """Torch's own, on contiguous tensors of one dtype."""
    update = torch._fused_adamw_ if settings.decoupled_weight_decay else torch._fused_adam_
    beta1, beta2 = settings.betas
    update(
        [w], [g.contiguous()], [m], [v], [], [step],
        lr=settings.lr, beta1=beta1, beta2=beta2, weight_decay=settings.weight_decay,
        eps=settings.eps, amsgrad=False, maximize=False,
    )  # fmt: skip
