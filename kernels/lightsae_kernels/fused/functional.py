"""The fused operations with gradients: a fused forward pass and the backward of the definition."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels import reference
from lightsae_kernels.flags import flag_on, raise_where_nothing_waits
from lightsae_kernels.fused.decode import block_d, sparse_decode_fwd, sparse_residual_fwd
from lightsae_kernels.fused.forward import Plan, encode_topk_fwd
from lightsae_kernels.types import Encoded, FusedRegularizer, Group, Residual


class EncodeTopKFunction(torch.autograd.Function):
    """Fused forward; backward at the selected support and mask."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, plan: Plan
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode the batch; see `Plan`."""
        values, indices, penalty, active = encode_topk_fwd(x, W_enc, b_enc, b_dec, plan)
        raise_where_nothing_waits(x.device)
        ctx.plan = plan
        ctx.save_for_backward(x, W_enc, b_enc, b_dec, indices, active)
        ctx.mark_non_differentiable(indices, active)
        ctx.set_materialize_grads(False)
        return values, indices, penalty, active

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, W_enc, b_enc and b_dec."""
        *tensors, indices, active = ctx.saved_tensors
        plan: Plan = ctx.plan
        with torch.enable_grad(), torch.autocast(tensors[0].device.type, enabled=False):
            leaves = [
                tensor.detach().requires_grad_(needed)
                for tensor, needed in zip(tensors, ctx.needs_input_grad[:4], strict=True)
            ]
            x, W_enc, b_enc, b_dec = (leaf.to(plan.dtype) for leaf in leaves)
            again = reference.encode_topk(
                x, W_enc, b_enc, b_dec, plan.k, regularizer=plan.regularizer,
                batch_active_only=plan.batch_active_only, eps=plan.eps,
                indices=indices, batch_active=active,
            )  # fmt: skip
        upstream = [(again.values, d_values), (again.penalty, d_penalty)]
        used = [(out, grad) for out, grad in upstream if grad is not None and out.requires_grad]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = torch.autograd.grad(
            [out for out, _ in used], wanted, [grad for _, grad in used], allow_unused=True
        )
        gradients = iter(found)
        return (*(next(gradients) if leaf.requires_grad else None for leaf in leaves), None)


class SparseDecodeFunction(torch.autograd.Function):
    """Fused forward; backward of the definition."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None
    ) -> Tensor:
        """Decode the batch."""
        ctx.save_for_backward(values, indices, W_dec, b_dec)
        x_hat = W_dec.new_empty(len(values), W_dec.shape[1])
        flag = flag_on(W_dec.device, "sparse_decode")
        sparse_decode_fwd(
            values.contiguous(), indices.contiguous(), W_dec.contiguous(), b_dec, x_hat, flag
        )
        raise_where_nothing_waits(W_dec.device)
        return x_hat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec and b_dec."""
        d_values, d_W_dec, d_b_dec = _decode_gradients(ctx, grad, ctx.needs_input_grad)
        return d_values, None, d_W_dec, d_b_dec


class SparseResidualFunction(torch.autograd.Function):
    """Fused forward; backward of the definition."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode the batch, subtract and square."""
        B, d_in = x.shape
        residual = torch.empty(B, d_in, dtype=torch.float32, device=x.device)
        error = residual.new_empty(B, -(-d_in // block_d(d_in)))
        flag = flag_on(x.device, "sparse_decode")
        sparse_residual_fwd(
            x.contiguous(), values.contiguous(), indices.contiguous(), W_dec.contiguous(), b_dec,
            residual, error, flag,
        )  # fmt: skip
        raise_where_nothing_waits(x.device)
        ctx.x_dtype = x.dtype
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
        d_x = torch.zeros_like(residual) if d_residual is None else d_residual
        if d_error is not None:
            d_x = d_x + 2 * d_error[:, None] * residual
        d_values, d_W_dec, d_b_dec = _decode_gradients(ctx, -d_x, ctx.needs_input_grad)
        return (
            d_values,
            None,
            d_W_dec,
            d_b_dec,
            d_x.to(ctx.x_dtype) if ctx.needs_input_grad[4] else None,
        )


def _decode_gradients(
    ctx: Any, grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of values, W_dec and b_dec, given that of x_hat."""
    values, indices, W_dec, b_dec, *_ = ctx.saved_tensors
    grad = grad.to(W_dec.dtype)
    d_values = d_W_dec = d_b_dec = None
    if needed[0]:
        d_values = (grad @ W_dec.t()).gather(1, indices).to(values.dtype)
    if needed[2]:
        z = values.new_zeros(len(values), len(W_dec)).scatter_add(1, indices, values)
        d_W_dec = z.to(W_dec.dtype).t() @ grad
    if needed[3]:
        d_b_dec = grad.sum(dim=0).to(b_dec.dtype)
    return d_values, d_W_dec, d_b_dec


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
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    plan = Plan(k, regularizer, batch_active_only, eps, indices, batch_active, process_group, dtype)
    values, selected, penalty, active = EncodeTopKFunction.apply(x, W_enc, b_enc, b_dec, plan)
    return Encoded(values, selected if indices is None else indices, penalty, active)


def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Tensor:
    """See `lightsae_kernels.sparse_decode`."""
    x_hat: Tensor = SparseDecodeFunction.apply(values, indices, W_dec, b_dec)
    return x_hat


def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Residual:
    """See `lightsae_kernels.sparse_residual`."""
    return Residual(*SparseResidualFunction.apply(values, indices, W_dec, b_dec, x))
