"""The fused operations with their gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels.dtypes import product_dtype
from lightsae_kernels.flags import flag_on, raise_where_nothing_waits
from lightsae_kernels.fused.backward import encode_topk_bwd
from lightsae_kernels.fused.decode import block_d, sparse_decode_fwd, sparse_residual_fwd
from lightsae_kernels.fused.forward import Encoding, Plan, Product, encode_topk_fwd
from lightsae_kernels.fused.order import LatentOrder, latent_order
from lightsae_kernels.fused.values_gradient import values_gradient_bwd
from lightsae_kernels.fused.weight_gradient import DecoderPairs, weight_gradient_bwd
from lightsae_kernels.shared import Shared, share, shared_by
from lightsae_kernels.types import Encoded, FusedRegularizer, Group, Residual


class EncodeTopKFunction(torch.autograd.Function):
    """Product, selection and penalty; the backward pass is at the selected support and mask."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, plan: Plan,
        order: Shared[LatentOrder],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Encode the batch; see `Plan`."""
        product = Product.of(x - b_dec, W_enc, b_enc, plan.dtype)
        found = encode_topk_fwd(product, plan)
        raise_where_nothing_waits(x.device)
        ctx.plan, ctx.order, ctx.x_dtype = plan, order, x.dtype
        ctx.save_for_backward(product.x, W_enc, b_enc, b_dec, *found)
        ctx.mark_non_differentiable(found.indices, found.active)
        ctx.set_materialize_grads(False)
        return found.values, found.indices, found.penalty, found.active

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, W_enc, b_enc and b_dec."""
        centred, W_enc, b_enc, b_dec, *rest = ctx.saved_tensors
        found, plan = Encoding(*rest), ctx.plan
        product = Product.of(centred, W_enc, b_enc, plan.dtype)
        order = ctx.order.get(lambda: latent_order(found.indices, len(W_enc)))
        of_x = ctx.needs_input_grad[0]
        d = encode_topk_bwd(product, found, plan, order, d_values, d_penalty, of_x=of_x)
        # Through x - b_dec, every row of the gradient of x counts against b_dec.
        d_b_dec = -(d.b_enc @ W_enc.float()).to(b_dec.dtype) if ctx.needs_input_grad[3] else None
        d_x = None if d.x is None else d.x.to(ctx.x_dtype)
        return d_x, d.W_enc.to(W_enc.dtype), d.b_enc.to(b_enc.dtype), d_b_dec, None, None


class SparseDecodeFunction(torch.autograd.Function):
    """Decode; sparse gradients."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None,
        order: Shared[LatentOrder],
    ) -> Tensor:  # fmt: skip
        """Decode the batch."""
        ctx.order = order
        ctx.save_for_backward(values, indices, W_dec, b_dec)
        x_hat = W_dec.new_empty(len(values), W_dec.shape[1])
        flag = flag_on(W_dec.device, "sparse_decode")
        dense = (values.contiguous(), indices.contiguous(), W_dec.contiguous(), _dense(b_dec))
        sparse_decode_fwd(*dense, x_hat, flag)
        raise_where_nothing_waits(W_dec.device)
        return x_hat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec and b_dec."""
        d_b_dec = grad.sum(dim=0) if ctx.needs_input_grad[3] else None
        return (*_decode_gradients(ctx, grad, None, d_b_dec), None)


class SparseResidualFunction(torch.autograd.Function):
    """Decode, subtract and square; sparse gradients."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None,
        order: Shared[LatentOrder], x: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Residual and squared error of the batch."""
        B, d_in = x.shape
        residual = torch.empty(B, d_in, dtype=torch.float32, device=x.device)
        error = residual.new_empty(B, -(-d_in // block_d(d_in)))
        flag = flag_on(x.device, "sparse_decode")
        dense = (values.contiguous(), indices.contiguous(), W_dec.contiguous(), _dense(b_dec))
        sparse_residual_fwd(x.contiguous(), *dense, residual, error, flag)
        raise_where_nothing_waits(x.device)
        ctx.order, ctx.x_dtype = order, x.dtype
        ctx.save_for_backward(values, indices, W_dec, b_dec, residual)
        ctx.set_materialize_grads(False)
        return residual, error.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_residual: Tensor | None, d_error: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec, b_dec and x."""
        *_, residual = ctx.saved_tensors
        if d_residual is None and d_error is not None:
            # The gradient is the residual, scaled by row: it is never written.
            g, rows = residual, -2 * d_error.float()
        else:
            g = torch.zeros_like(residual) if d_residual is None else -d_residual
            if d_error is not None:
                g = g - 2 * d_error[:, None] * residual
            rows = None
        d_b_dec = None
        if ctx.needs_input_grad[3]:
            d_b_dec = g.sum(dim=0) if rows is None else rows @ g
        found = _decode_gradients(ctx, g, rows, d_b_dec)
        if not ctx.needs_input_grad[5]:
            return (*found, None, None)
        d_x = -g if rows is None else -rows[:, None] * g
        return (*found, None, d_x.to(ctx.x_dtype))


def _dense(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _decode_gradients(
    ctx: Any, g: Tensor, rows: Tensor | None, d_b_dec: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of values, indices, W_dec and b_dec, given that of x_hat: g, times `rows` [B]."""
    values, indices, W_dec, b_dec, *_ = ctx.saved_tensors
    g, indices = g.contiguous(), indices.contiguous()
    d_values = d_W_dec = None
    if ctx.needs_input_grad[0]:
        d_values = torch.empty(values.shape, device=g.device)
        values_gradient_bwd(g, indices, W_dec.contiguous(), d_values)
        d_values = (d_values if rows is None else d_values * rows[:, None]).to(values.dtype)
    if ctx.needs_input_grad[2]:
        z = values.float() if rows is None else values.float() * rows[:, None]
        d_W_dec = torch.empty(W_dec.shape, device=g.device)
        order = ctx.order.get(lambda: latent_order(indices, len(W_dec)))
        weight_gradient_bwd(order, None, DecoderPairs(z.contiguous(), g, d_W_dec))
        d_W_dec = d_W_dec.to(W_dec.dtype)
    if d_b_dec is not None:
        d_b_dec = d_b_dec.to(b_dec.dtype)
    return d_values, None, d_W_dec, d_b_dec


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
    dtype = product_dtype(x)
    needed = torch.is_grad_enabled() and any(t.requires_grad for t in (x, W_enc, b_enc, b_dec))
    given = None if indices is None else indices.contiguous()
    plan = Plan(
        k, regularizer, batch_active_only, eps, given, batch_active, process_group, dtype, needed
    )
    order: Shared[LatentOrder] = Shared() if indices is None else shared_by(indices)
    arguments = (x, W_enc, b_enc, b_dec, plan, order)
    with torch.cuda.device_of(x):
        values, selected, penalty, active = EncodeTopKFunction.apply(*arguments)
    if indices is None:
        share(selected, order)
    return Encoded(values, selected if indices is None else indices, penalty, active)


def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Tensor:
    """See `lightsae_kernels.sparse_decode`."""
    with torch.cuda.device_of(W_dec):
        x_hat: Tensor = SparseDecodeFunction.apply(
            values, indices, W_dec, b_dec, shared_by(indices)
        )
    return x_hat


def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Residual:
    """See `lightsae_kernels.sparse_residual`."""
    arguments = (values, indices, W_dec, b_dec, shared_by(indices), x)
    with torch.cuda.device_of(x):
        return Residual(*SparseResidualFunction.apply(*arguments))
