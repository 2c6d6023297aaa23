"""The fused operations with their gradients."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, Unpack, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels.dtypes import product_dtype
from lightsae_kernels.flags import flag_on, raise_where_nothing_waits
from lightsae_kernels.fused.backward import Operands, encode_topk_bwd
from lightsae_kernels.fused.decode import sparse_decode_fwd
from lightsae_kernels.fused.forward import Encoding, Plan, Product, encode_topk_fwd
from lightsae_kernels.fused.order import LatentOrder, latent_order
from lightsae_kernels.fused.values_gradient import values_gradient_bwd
from lightsae_kernels.fused.weight_gradient import DecoderPairs, weight_gradient_bwd
from lightsae_kernels.shared import Shared, remember, shared_by
from lightsae_kernels.types import Encoded, EncodeOptions, FusedRegularizer, Group

F = TypeVar("F", bound=Callable[..., Any])


def outside_autocast(backward: F) -> F:
    """Let a backward pass compute in the dtypes of its tensors wherever it is called."""

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor | None) -> Any:
        device = next((g.device.type for g in gradients if g is not None), "cpu")
        with torch.autocast(device, enabled=False):
            return backward(ctx, *gradients)

    return cast("F", run)


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
    @outside_autocast
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, W_enc, b_enc and b_dec."""
        centred, W_enc, b_enc, b_dec, *rest = ctx.saved_tensors
        found, plan = Encoding(*rest), ctx.plan
        operands = Operands(centred, W_enc, b_enc, plan.dtype)
        order = ctx.order.get(len(W_enc), lambda: latent_order(found.indices, len(W_enc)))
        of_x = ctx.needs_input_grad[0]
        d = encode_topk_bwd(operands, found, plan, order, d_values, d_penalty, of_x=of_x)
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
        operands = (values.contiguous(), indices.contiguous(), W_dec.contiguous(), dense(b_dec))
        sparse_decode_fwd(*operands, x_hat, flag)
        raise_where_nothing_waits(W_dec.device)
        return x_hat

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec and b_dec."""
        d_b_dec = grad.sum(dim=0) if ctx.needs_input_grad[3] else None
        return (*decode_gradients(ctx, grad, None, d_b_dec), None)


def dense(bias: Tensor | None) -> Tensor | None:
    """A bias, if there is one, without strides."""
    return None if bias is None else bias.contiguous()


def decode_gradients(
    ctx: Any, g: Tensor, rows: Tensor | None, d_b_dec: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of values, indices, W_dec and b_dec, given that of x_hat: g, times `rows` [B]."""
    values, indices, W_dec, b_dec, *_ = ctx.saved_tensors
    g, indices = g.contiguous(), indices.contiguous()
    d_values = d_W_dec = None
    if ctx.needs_input_grad[0]:
        d_values = torch.empty(values.shape, dtype=torch.float32, device=g.device)
        values_gradient_bwd(g, indices, W_dec.contiguous(), d_values)
        d_values = (d_values if rows is None else d_values * rows[:, None]).to(values.dtype)
    if ctx.needs_input_grad[2]:
        z = values.float() if rows is None else values.float() * rows[:, None]
        d_W_dec = torch.empty(W_dec.shape, dtype=torch.float32, device=g.device)
        order = ctx.order.get(len(W_dec), lambda: latent_order(indices, len(W_dec)))
        weight_gradient_bwd(order, None, DecoderPairs(z.contiguous(), g, d_W_dec))
        d_W_dec = d_W_dec.to(W_dec.dtype)
    if d_b_dec is not None:
        d_b_dec = d_b_dec.to(b_dec.dtype)
    return d_values, None, d_W_dec, d_b_dec


def planned(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    k: int,
    *,
    regularizer: FusedRegularizer | None = None,
    batch_active_only: bool = True,
    eps: float = 1e-8,
    indices: Tensor | None = None,
    batch_active: Tensor | None = None,
    process_group: Group = None,
) -> tuple[Plan, Shared[LatentOrder]]:
    """What is asked of an encoding of x with W_enc, b_enc and b_dec, and the order of its pairs."""
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    given = None if indices is None else indices.contiguous()
    plan = Plan(
        k, regularizer, batch_active_only, eps, given, batch_active, process_group,
        product_dtype(tensors[0]), needed,
    )  # fmt: skip
    return plan, Shared() if indices is None else shared_by(indices)


def encode_topk(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int,
    **options: Unpack[EncodeOptions],
) -> Encoded:  # fmt: skip
    """See `lightsae_kernels.encode_topk`."""
    plan, order = planned((x, W_enc, b_enc, b_dec), k, **options)
    with torch.cuda.device_of(x):
        found = EncodeTopKFunction.apply(x, W_enc, b_enc, b_dec, plan, order)
    return encoded(found, options.get("indices"), order)


def encoded(
    found: tuple[Tensor, Tensor, Tensor, Tensor], given: Tensor | None, order: Shared[LatentOrder]
) -> Encoded:
    """Give back the caller's own indices, or let who uses the new ones share their order."""
    values, indices, penalty, active = found
    if given is None:
        remember(indices, order)
    return Encoded(values, indices if given is None else given, penalty, active)


def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Tensor:
    """See `lightsae_kernels.sparse_decode`."""
    with torch.cuda.device_of(W_dec):
        x_hat: Tensor = SparseDecodeFunction.apply(
            values, indices, W_dec, b_dec, shared_by(indices)
        )
    return x_hat
