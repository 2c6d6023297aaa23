"""Adam with projection and unit norm: torch's fused update over row blocks, no larger temporary."""

import torch
from torch import Tensor

from lightsae_kernels.types import AdamSettings

# Blocks that fit in cache cost more in calls, and in waiting for threads, than they save.
_BLOCK_ELEMENTS = 1 << 22


def adam_step_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
    settings: AdamSettings,
    copy: Tensor | None = None,
) -> None:
    """See `lightsae_kernels.adam_step_`."""
    same = param.dtype == grad.dtype == exp_avg.dtype == exp_avg_sq.dtype
    if same and not (settings.project or settings.normalize):
        _update(param, grad, exp_avg, exp_avg_sq, step, settings)
        if copy is not None:
            copy.copy_(param)
        return
    tensors = [param, grad, exp_avg, exp_avg_sq, *([] if copy is None else [copy])]
    if param.dim() < 2:
        tensors = [t.reshape(1, -1) for t in tensors]
    rows = max(1, _BLOCK_ELEMENTS // max(1, tensors[0][0].numel()))
    for block in zip(*(t.split(rows) for t in tensors), strict=True):
        _step_rows(block, step, settings)


def _step_rows(block: tuple[Tensor, ...], step: Tensor, settings: AdamSettings) -> None:
    param, grad, exp_avg, exp_avg_sq, *copy = block
    dtype = torch.promote_types(param.dtype, torch.float32)
    w, g, m, v = (t.to(dtype) for t in (param, grad, exp_avg, exp_avg_sq))
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
    for target, value in ((param, w), (exp_avg, m), (exp_avg_sq, v)):
        if target is not value:
            target.copy_(value)
    for narrow in copy:
        narrow.copy_(param)


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
