"""The definition of every operation, in plain torch and without tricks (arXiv 2606.27321).

    a = ReLU(W_enc (x - b_dec) + b_enc)      S_i = the k largest of a_i, ties to the lowest index
    Reg 1 = mean_i ||mu * (a_i - z_i)||_1    Reg 2 = mean_i ||mu * a_i||_1 / (||mu * a_i||_2 + eps)
    mu_j = 1 if j is in S_i for at least one sample i, constant in the backward pass

Shapes: x [B, d_in], W_enc and W_dec [d_sae, d_in], a [B, d_sae], values and indices [B, k].
"""

from typing import Unpack

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from lightsae_kernels.encode_plan import decode_dtype
from lightsae_kernels.quantized_moments import read_moment, write_moment_
from lightsae_kernels.types import (
    AdamSettings,
    Encoded,
    EncodeOptions,
    FusedRegularizer,
    Group,
    Moment,
    Narrow,
    NestedResidual,
    Residual,
)


def activations(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
    """Rectified pre-activations a, [B, d_sae]."""
    return F.linear(x - b_dec, W_enc, b_enc).relu()


def select_topk(a: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row, values descending, ties to the lowest index."""
    return a.detach().sort(dim=-1, descending=True, stable=True).indices[:, :k]


def select_bank_topk(a: Tensor, k: int, bank: int) -> Tensor:
    """Indices of the k * bank / d_sae largest of every `bank` consecutive latents, [B, k]."""
    (B, d_sae), banks = a.shape, a.shape[1] // bank
    within = select_topk(a.reshape(B * banks, bank), k // banks).view(B, banks, k // banks)
    first = torch.arange(0, d_sae, bank, device=a.device)
    return (within + first[:, None]).view(B, k)


def select_above(a: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of all activations above a bound, ascending, and which places have one.

    Args:
        a: Activations, [B, d_sae].
        above: Scalar or [d_sae]; what is below 0 counts as 0.

    Returns:
        Indices [B, W], of as many places as the fullest row takes, at least one, and a mask [B, W].
        Places without one repeat the first latent of their row, or are latent 0.
    """
    marked = a.detach() > rounded_down(above.clamp_min(0), a.dtype)
    W = max(1, int(marked.sum(dim=1).max())) if len(a) else 1
    ordered = marked.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    used, indices = ordered.values[:, :W].bool(), ordered.indices[:, :W]
    first = indices[:, :1].where(used[:, :1], 0)
    return torch.where(used, indices, first), used


def rounded_down(bound: Tensor, dtype: torch.dtype) -> Tensor:
    """Bounds in a dtype such that the same of its numbers are above them."""
    nearest = bound.to(dtype)
    below = torch.nextafter(nearest, nearest.new_full((), -torch.inf))
    return torch.where(nearest > bound, below, nearest)


def batch_active_mask(
    indices: Tensor, d_sae: int, process_group: Group = None, used: Tensor | None = None
) -> Tensor:
    """Latents in at least one index set of the batch, over all ranks of the group; [d_sae] bool."""
    active = torch.zeros(d_sae, dtype=torch.uint8, device=indices.device)
    if used is None:
        active[indices.reshape(-1)] = 1
    elif indices.is_cpu:
        active[indices[used]] = 1
    else:
        # A mask as an index would wait for the device.
        active.scatter_reduce_(0, indices.reshape(-1), used.reshape(-1).to(active.dtype), "amax")
    if process_group is not None:
        dist.all_reduce(active, op=dist.ReduceOp.MAX, group=process_group)
    return active.bool()


def off_support_l1(a: Tensor, indices: Tensor, mask: Tensor, used: Tensor | None = None) -> Tensor:
    """Reg 1: mean over samples of the masked l1 norm of what selection drops."""
    if used is None:
        dropped = a.scatter(1, indices, 0.0)
    else:
        # A latent may stand in several places of its row, of which one is used.
        selected = torch.zeros_like(a).scatter_add(1, indices, used.to(a.dtype))
        dropped = a * (selected == 0)
    return (_at_least_float32(dropped) * mask).sum() / max(len(a), 1)


def l1_l2_ratio(a: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Reg 2: mean over samples of l1 / (l2 + eps) over the masked latents; 0 for a row of zeros."""
    masked = _at_least_float32(a) * mask
    l1 = masked.sum(dim=1)
    l2 = torch.linalg.vector_norm(masked, dim=1)
    return norm_ratio(l1, l2, eps).sum() / max(len(a), 1)


def norm_ratio(l1: Tensor, l2: Tensor, eps: float) -> Tensor:
    """l1 / (l2 + eps) of each row, 0 for a row of zeros; inf if the squares overflow."""
    ratio = torch.where(l2 > 0, l1 / (l2 + eps), 0.0)
    return torch.where(l2.isinf(), l2, ratio)


def norm_ratio_gradient(l1: Tensor, l2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Factors alpha and beta of each row: the gradient in a positive a_j is alpha - beta a_j."""
    alpha = torch.where(l2 > 0, 1 / (l2 + eps), 0.0)
    # In this order nothing leaves the range of float32 before alpha does.
    return alpha, torch.where(l2 > 0, l1 / l2 * alpha * alpha, 0.0)


def encode_topk(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    b_dec: Tensor,
    k: int,
    *,
    regularizer: FusedRegularizer | None = None,
    batch_active_only: bool = True,
    eps: float = 1e-8,
    indices: Tensor | None = None,
    batch_active: Tensor | None = None,
    process_group: Group = None,
    bank: int | None = None,
    above: Tensor | None = None,
    narrow: Narrow | None = None,
) -> Encoded:
    """Encode, select and penalise; see `lightsae_kernels.encode_topk` for the arguments."""
    a = activations(x, W_enc, b_enc, b_dec)
    used = None
    if above is not None:
        indices, used = select_above(a, above)
    elif indices is None:
        indices = select_topk(a, k) if bank is None else select_bank_topk(a, k, bank)
    values = a.gather(1, indices)
    values = values if used is None else values.masked_fill(~used, 0.0)
    if narrow is not None:
        selected = narrow(values.detach(), indices)
        used = selected if used is None else selected & used
    values = values if used is None else values.masked_fill(~used, 0.0)
    if batch_active is None:
        batch_active = batch_active_mask(indices, len(W_enc), process_group, used)
    mask = batch_active if batch_active_only else torch.ones_like(batch_active)
    if regularizer == "off_support_l1":
        penalty = off_support_l1(a, indices, mask, used)
    elif regularizer == "l1_l2_ratio":
        penalty = l1_l2_ratio(a, mask, eps)
    else:
        penalty = _at_least_float32(values.new_zeros(()))
    return Encoded(values, indices, penalty, batch_active, used)


def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Tensor:
    """Sum of the selected decoder rows, weighted by their values, plus the bias; [B, d_in].

    Under autocast the rows are rounded to its dtype, and added up in that of W_dec.
    """
    z = values.new_zeros(len(values), len(W_dec)).scatter_add(1, indices, values)
    rows = _rounded(W_dec, decode_dtype(W_dec))
    with torch.autocast(W_dec.device.type, enabled=False):
        x_hat = z.to(W_dec.dtype) @ rows
    return x_hat if b_dec is None else x_hat + b_dec


def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Residual:
    """Residual x - x_hat and the squared norm of each row of it."""
    x_hat = sparse_decode(values, indices, W_dec, b_dec)
    residual = _at_least_float32(x) - _at_least_float32(x_hat)
    return Residual(residual, residual.square().sum(dim=1))


def nested_residual(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    levels: Tensor,
    parts: int,
    W_dec: Tensor,
    b_dec: Tensor | None = None,
) -> NestedResidual:
    """What is left of x by the places of level 0, of levels 0 and 1, and so on."""
    left = [
        sparse_residual(x, values.where(levels <= part, 0.0), indices, W_dec, b_dec)
        for part in range(parts)
    ]
    return NestedResidual(left[-1].residual, torch.stack([each.error for each in left]))


def encode_residual(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    k: int,
    **options: Unpack[EncodeOptions],
) -> tuple[Encoded, Residual]:
    """Encode, and what the code leaves unexplained."""
    encoded = encode_topk(x, W_enc, b_enc, b_dec, k, **options)
    return encoded, sparse_residual(x, encoded.values, encoded.indices, W_dec, b_dec)


def adam_step_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    step: Tensor,
    settings: AdamSettings,
    copy: Tensor | None = None,
) -> None:
    """Step one parameter and its moments; see `lightsae_kernels.adam_step_` for the arguments."""
    w, g = _at_least_float32(param), _at_least_float32(grad)
    m, v = read_moment(exp_avg, w.dtype), read_moment(exp_avg_sq, w.dtype)
    lr, (beta1, beta2), eps, decay, decoupled, project, normalize = settings
    lr = lr.reshape(()) if isinstance(lr, Tensor) else lr
    if project:
        along = (g * w).sum(dim=1) / w.square().sum(dim=1).clamp_min(torch.finfo(w.dtype).tiny)
        g = g - along[:, None] * w
    if decoupled:
        w = w * (1 - lr * decay)
    else:
        g = g + decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g.square()
    root = (v / (1 - beta2 ** step.double())).sqrt() + eps
    w = w - lr / (1 - beta1 ** step.double()) * (m / root)
    if normalize:
        moved = (m != 0).any(dim=1, keepdim=True) | (decoupled and decay != 0)
        norms = torch.linalg.vector_norm(w, dim=1, keepdim=True)
        w = torch.where(moved, w / norms.clamp_min(torch.finfo(w.dtype).tiny), w)
    param.copy_(w)
    write_moment_(exp_avg, m, step)
    write_moment_(exp_avg_sq, v, step)
    if copy is not None:
        copy.copy_(param)


def _rounded(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to a dtype, in its own; the gradient passes as if it were not."""
    return t if dtype == t.dtype else t + (t.to(dtype).to(t.dtype) - t).detach()


def _at_least_float32(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
