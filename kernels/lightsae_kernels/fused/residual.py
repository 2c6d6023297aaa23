"""What a code leaves unexplained, alone or together with the encoding, with their gradients."""

from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels.flags import flag_on, raise_where_nothing_waits
from lightsae_kernels.fused.backward import Operands, encode_topk_bwd
from lightsae_kernels.fused.decode import block_d, sparse_residual_fwd
from lightsae_kernels.fused.forward import Encoding, Plan, Product, encode_topk_fwd
from lightsae_kernels.fused.functional import (
    decode_gradients,
    dense,
    encoded,
    outside_autocast,
    planned,
)
from lightsae_kernels.fused.order import LatentOrder, latent_order
from lightsae_kernels.fused.values_gradient import values_gradient_bwd
from lightsae_kernels.fused.weight_gradient import DecoderPairs
from lightsae_kernels.shared import Shared, shared_by
from lightsae_kernels.types import Encoded, EncodeOptions, Residual


class Upstream(NamedTuple):
    """Gradient of the reconstructions: `g` [B, d_in], times `rows` [B] if there are any."""

    g: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, residual: Tensor, d_residual: Tensor | None, d_error: Tensor | None) -> "Upstream":
        """From the gradients of the residual and of its squared norms."""
        if d_residual is None and d_error is not None:
            # The gradient is the residual, scaled by row: it is never written.
            return cls(residual, -2 * d_error.float())
        g = torch.zeros_like(residual) if d_residual is None else -d_residual
        if d_error is not None:
            g = g - 2 * d_error[:, None] * residual
        return cls(g.contiguous(), None)

    def by_row(self, t: Tensor) -> Tensor:
        """Scale the rows of a tensor [B, ...]."""
        return t if self.rows is None else t * self.rows[:, None]

    def sum(self) -> Tensor:
        """Over the samples, [d_in]."""
        return self.g.sum(dim=0) if self.rows is None else self.rows @ self.g


def residual_fwd(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Residual [B, d_in] and squared error [B], in float32."""
    B, d_in = x.shape
    residual = torch.empty(B, d_in, dtype=torch.float32, device=x.device)
    error = residual.new_empty(B, -(-d_in // block_d(d_in)))
    flag = flag_on(x.device, "sparse_decode")
    operands = (values.contiguous(), indices.contiguous(), W_dec.contiguous(), dense(b_dec))
    sparse_residual_fwd(x.contiguous(), *operands, residual, error, flag)
    raise_where_nothing_waits(x.device)
    return residual, error.sum(dim=1)


class SparseResidualFunction(torch.autograd.Function):
    """Decode, subtract and square; sparse gradients."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None,
        order: Shared[LatentOrder], x: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Residual and squared error of the batch."""
        residual, error = residual_fwd(x, values, indices, W_dec, b_dec)
        ctx.order, ctx.x_dtype = order, x.dtype
        ctx.save_for_backward(values, indices, W_dec, b_dec, residual)
        ctx.set_materialize_grads(False)
        return residual, error

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_residual: Tensor | None, d_error: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec, b_dec and x."""
        *_, residual = ctx.saved_tensors
        upstream = Upstream.of(residual, d_residual, d_error)
        d_b_dec = upstream.sum() if ctx.needs_input_grad[3] else None
        found = decode_gradients(ctx, *upstream, d_b_dec)
        d_x = -upstream.by_row(upstream.g).to(ctx.x_dtype) if ctx.needs_input_grad[5] else None
        return (*found, None, d_x)


class EncodeResidualFunction(torch.autograd.Function):
    """Encode and decode; both weight gradients come out of one pass over the pairs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor,
        plan: Plan, order: Shared[LatentOrder],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Values, indices, penalty, mask, residual and squared error of the batch."""
        product = Product.of(x - b_dec, W_enc, b_enc, plan.dtype)
        found = encode_topk_fwd(product, plan)
        residual, error = residual_fwd(x, found.values, found.indices, W_dec, b_dec)
        ctx.plan, ctx.order, ctx.x_dtype = plan, order, x.dtype
        ctx.save_for_backward(product.x, W_enc, b_enc, W_dec, b_dec, residual, *found)
        ctx.mark_non_differentiable(found.indices, found.active)
        ctx.set_materialize_grads(False)
        return found.values, found.indices, found.penalty, found.active, residual, error

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None,
        d_residual: Tensor | None, d_error: Tensor | None,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Gradients of x, W_enc, b_enc, W_dec and b_dec."""
        centred, W_enc, b_enc, W_dec, b_dec, residual, *rest = ctx.saved_tensors
        found, of_x, of_b_dec = Encoding(*rest), ctx.needs_input_grad[0], ctx.needs_input_grad[4]
        upstream = Upstream.of(residual, d_residual, d_error)
        through = torch.empty(found.values.shape, dtype=torch.float32, device=centred.device)
        values_gradient_bwd(upstream.g, found.indices, W_dec.contiguous(), through)
        through = upstream.by_row(through)
        through = through if d_values is None else through + d_values
        z = upstream.by_row(found.values.float()).contiguous()
        decoder = DecoderPairs(
            z, upstream.g, torch.empty(W_dec.shape, dtype=torch.float32, device=centred.device)
        )
        operands = Operands(centred, W_enc, b_enc, ctx.plan.dtype)
        order = ctx.order.get(len(W_enc), lambda: latent_order(found.indices, len(W_enc)))
        d = encode_topk_bwd(
            operands, found, ctx.plan, order, through, d_penalty, of_x=of_x, decoder=decoder
        )
        d_x = d_b_dec = None
        if d.x is not None:
            d_x = (d.x - upstream.by_row(upstream.g)).to(ctx.x_dtype)
        if of_b_dec:
            d_b_dec = (upstream.sum() - d.b_enc @ W_enc.float()).to(b_dec.dtype)
        of_weights = d.W_enc.to(W_enc.dtype), d.b_enc.to(b_enc.dtype), decoder.d_W.to(W_dec.dtype)
        return d_x, *of_weights, d_b_dec, None, None


def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Residual:
    """See `lightsae_kernels.sparse_residual`."""
    arguments = (values, indices, W_dec, b_dec, shared_by(indices), x)
    with torch.cuda.device_of(x):
        return Residual(*SparseResidualFunction.apply(*arguments))


def encode_residual(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, k: int,
    **options: Unpack[EncodeOptions],
) -> tuple[Encoded, Residual]:  # fmt: skip
    """See `lightsae_kernels.encode_residual`."""
    plan, order = planned((x, W_enc, b_enc, b_dec), k, **options)
    with torch.cuda.device_of(x):
        found = EncodeResidualFunction.apply(x, W_enc, b_enc, W_dec, b_dec, plan, order)
    return encoded(found[:4], options.get("indices"), order), Residual(*found[4:])
