"""Encoder product, Top-k and regularizer terms over row blocks that stay in cache.

Only a regularizer keeps a [B, d_sae], in a reused buffer; its gradient is made there in place:

    Reg 1: dR/da_j = 1 for a_j > 0, j in mu, j not in S        (arXiv 2606.27321)
    Reg 2: dR/da_j = alpha - beta a_j for a_j > 0, j in mu, alpha = 1/(l2 + eps),
           beta = l1 / (l2 (l2 + eps)^2)

The Top-k gradient is added at the support, so one product gives the whole gradient of W_enc.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightsae_kernels import reference
from lightsae_kernels.checks import require_finite_activations
from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.gradients import (
    LatentOrder,
    latent_sums,
    weight_gradient,
)
from lightsae_kernels.cpu.select import select_topk
from lightsae_kernels.dtypes import product_dtype
from lightsae_kernels.shared import Shared, narrow, remember, shared_by
from lightsae_kernels.types import Encoded, FusedRegularizer, Group

_PRODUCT_BYTES = 12 << 20
_PASS_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What is asked of one encoding, beside its tensors."""

    k: int
    regularizer: FusedRegularizer | None
    batch_active_only: bool
    eps: float
    indices: Tensor | None
    batch_active: Tensor | None
    process_group: Group
    product_dtype: torch.dtype
    order: Shared[LatentOrder]
    will_differentiate: bool


@dataclass
class Kept:
    """The masked activations of a regularized batch and their row coefficients, until backward."""

    a: Tensor
    alpha: Tensor
    beta: Tensor | None


def _blocks(rows: int, row_bytes: int, block_bytes: int) -> Iterator[slice]:
    step = max(1, block_bytes // max(row_bytes, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class EncodeTopKFunction(torch.autograd.Function):
    """Forward in row blocks; backward sparse, or one dense product if a regularizer asks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, plan: Plan
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode the batch; see `Plan`."""
        with torch.autocast("cpu", enabled=False):
            centred = x - b_dec
            values, indices, a = product_and_select(centred, W_enc, b_enc, plan)
            require_finite_activations(values)
            active = plan.batch_active
            if active is None:
                active = reference.batch_active_mask(indices, len(W_enc), plan.process_group)
            mask = active if plan.batch_active_only else None
            penalty, kept = evaluate_penalty(a, indices, mask, plan)
        if kept is not None and not plan.will_differentiate:
            workspace.give(kept.a)
            kept = None
        ctx.plan, ctx.kept, ctx.spent = plan, kept, False
        ctx.save_for_backward(centred, W_enc, values, indices)
        ctx.mark_non_differentiable(indices, active)
        ctx.set_materialize_grads(False)
        return values, indices, penalty, active

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, W_enc, b_enc and b_dec."""
        centred, W_enc, values, indices = ctx.saved_tensors
        coefficient = torch.zeros_like(values) if d_values is None else d_values * (values > 0)
        if d_penalty is not None and ctx.spent:
            raise RuntimeError(
                "the regularized encode_topk keeps its activations for one backward pass; "
                "use backend='reference' to go through the graph twice"
            )
        needed = ctx.needs_input_grad
        if ctx.kept is None or d_penalty is None:
            found = sparse_gradients(ctx.plan, coefficient, centred, W_enc, indices, needed)
        else:
            ctx.spent, kept, ctx.kept = True, ctx.kept, None
            found = dense_gradients(
                ctx.plan, kept, coefficient, d_penalty, centred, W_enc, indices, needed
            )
        return (*found, None)


def product_and_select(
    centred: Tensor, W_enc: Tensor, b_enc: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values and indices of every row, and all pre-activations if a regularizer wants them."""
    dtype, d_sae = plan.product_dtype, len(W_enc)
    x, weight, bias = centred.to(dtype), narrow(W_enc, dtype).t(), b_enc.to(dtype)
    rows = len(x)
    values = torch.empty(rows, plan.k, dtype=dtype)
    indices = plan.indices if plan.indices is not None else torch.empty(
        rows, plan.k, dtype=torch.int64
    )  # fmt: skip
    row_bytes = d_sae * dtype.itemsize
    keep = plan.regularizer is not None
    product_rows = rows if keep else min(rows, max(1, _PRODUCT_BYTES // row_bytes))
    buffer = workspace.take((product_rows, d_sae), dtype)
    for block in _blocks(rows, row_bytes, _PRODUCT_BYTES):
        a = buffer[block] if keep else buffer[: block.stop - block.start]
        torch.addmm(bias, x[block], weight, out=a)
        if plan.indices is None:
            values[block], indices[block] = select_topk(a, plan.k)
        else:
            values[block] = a.gather(1, indices[block]).relu_()
    if keep:
        return values, indices, buffer
    workspace.give(buffer)
    return values, indices, None


def evaluate_penalty(
    a: Tensor | None, indices: Tensor, mask: Tensor | None, plan: Plan
) -> tuple[Tensor, Kept | None]:
    """Value of the regularizer; rectifies a and zeroes its masked-out columns on the way."""
    wide = torch.promote_types(plan.product_dtype, torch.float32)
    if a is None:
        return torch.zeros((), dtype=wide), None
    # A mask of another dtype would leave the vectorised loop.
    weights = None if mask is None or bool(mask.all()) else mask.to(a.dtype)
    l1, squares = torch.empty(len(a), dtype=wide), torch.empty(len(a), dtype=wide)
    for block in _blocks(len(a), a.shape[1] * a.element_size(), _PASS_BYTES):
        rows = a[block].relu_()
        if weights is not None:
            rows.mul_(weights)
        if plan.regularizer == "off_support_l1":
            rows.scatter_(1, indices[block], 0.0)
        torch.sum(rows, dim=1, dtype=wide, out=l1[block])
        if plan.regularizer == "l1_l2_ratio":
            squares[block] = torch.linalg.vector_norm(rows, dim=1, dtype=wide)
    scale = 1.0 / max(len(a), 1)
    if plan.regularizer == "off_support_l1":
        return l1.sum() * scale, Kept(a, torch.ones_like(l1), None)
    l2 = squares
    alpha, beta = reference.norm_ratio_gradient(l1, l2, plan.eps)
    return reference.norm_ratio(l1, l2, plan.eps).sum() * scale, Kept(a, alpha, beta)


def _regularizer_gradient_(
    kept: Kept, scale: Tensor, indices: Tensor, coefficient: Tensor
) -> Tensor:
    """Turn the kept activations into the gradient of a, in place; returns its column sums."""
    a = kept.a
    wide = kept.alpha.dtype
    columns = torch.zeros(a.shape[1], dtype=wide)
    # The coefficients of a row of small activations leave the range of float16.
    inner = wide if a.dtype == torch.float16 else a.dtype
    alpha = (kept.alpha * scale).to(inner).unsqueeze(1)
    beta = None if kept.beta is None else (kept.beta * scale).neg().to(inner).unsqueeze(1)
    for block in _blocks(len(a), a.shape[1] * a.element_size(), _PASS_BYTES):
        g = a[block].to(inner)
        if beta is None:
            g.sign_().mul_(scale.to(inner))
        else:
            positive = g.sign()
            g.mul_(beta[block]).addcmul_(positive, alpha[block])
        g.scatter_add_(1, indices[block], coefficient[block].to(inner))
        columns += g.sum(dim=0, dtype=wide)
        if inner != a.dtype:
            a[block] = g
    return columns


def dense_gradients(
    plan: Plan, kept: Kept, coefficient: Tensor, d_penalty: Tensor, centred: Tensor, W_enc: Tensor,
    indices: Tensor, needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Turn the kept activations into the gradient of a, and hand their buffer back."""
    g, product = kept.a, plan.product_dtype
    d_x = d_W = d_b_dec = None
    b_sum = _regularizer_gradient_(kept, d_penalty / max(len(g), 1), indices, coefficient)
    if needed[1]:
        d_W = torch.mm(g.t(), centred.to(product)).to(W_enc.dtype)
    if needed[0]:
        d_x = torch.mm(g, narrow(W_enc, product)).to(centred.dtype)
    workspace.give(g)
    d_b_enc = b_sum.to(W_enc.dtype)
    if needed[3]:
        d_b_dec = -(d_b_enc @ W_enc)
    return d_x, d_W, d_b_enc, d_b_dec


def sparse_gradients(
    plan: Plan, coefficient: Tensor, centred: Tensor, W_enc: Tensor, indices: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, W_enc, b_enc and b_dec where only the support counts."""
    d_x = d_W = d_b_dec = None
    coefficient = coefficient.to(W_enc.dtype)
    d_b_enc = latent_sums(indices, coefficient, len(W_enc))
    if needed[0]:
        d_x = F.embedding_bag(indices, W_enc, mode="sum", per_sample_weights=coefficient)
    if needed[1]:
        d_W = weight_gradient(plan.order, indices, coefficient, centred, len(W_enc))
    if needed[3]:
        d_b_dec = -(d_b_enc @ W_enc)
    return d_x, d_W, d_b_enc, d_b_dec


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
) -> Encoded:
    """See `lightsae_kernels.encode_topk`."""
    order: Shared[LatentOrder] = Shared() if indices is None else shared_by(indices)
    inputs = (x, W_enc, b_enc, b_dec)
    plan = Plan(
        k=k,
        regularizer=regularizer,
        batch_active_only=batch_active_only,
        eps=eps,
        indices=indices,
        batch_active=batch_active,
        process_group=process_group,
        product_dtype=product_dtype(x),
        order=order,
        will_differentiate=torch.is_grad_enabled() and any(t.requires_grad for t in inputs),
    )
    values, selected, penalty, active = EncodeTopKFunction.apply(x, W_enc, b_enc, b_dec, plan)
    if indices is None:
        remember(selected, order)
    return Encoded(values, selected if indices is None else indices, penalty, active)
