"""Sparse decode x_hat = sum_s values[i, s] W_dec[indices[i, s]] + b_dec, without a dense code."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightsae_kernels.cpu.gradients import LatentOrder, weight_gradient
from lightsae_kernels.shared import Shared, shared_by
from lightsae_kernels.types import Residual


class SparseDecodeFunction(torch.autograd.Function):
    """Decode as an embedding bag; both gradients stay sparse until the weight itself."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None,
        order: Shared[LatentOrder],
    ) -> Tensor:  # fmt: skip
        """Decode and remember what the backward pass needs."""
        ctx.order, ctx.shape = order, W_dec.shape
        weights = values.detach().to(W_dec.dtype).requires_grad_(ctx.needs_input_grad[0])
        # The bag's own graph gives the gradient of its weights without a second gather.
        with torch.enable_grad():
            bags = F.embedding_bag(indices, W_dec.detach(), mode="sum", per_sample_weights=weights)
        ctx.graph = (bags, weights)
        ctx.save_for_backward(values, indices)
        return bags.detach() + b_dec if b_dec is not None else bags.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec and b_dec."""
        values, indices = ctx.saved_tensors
        grad = grad.contiguous()
        d_values = d_W_dec = d_b_dec = None
        if ctx.needs_input_grad[0]:
            bags, weights = ctx.graph
            (d_values,) = torch.autograd.grad(bags, weights, grad, retain_graph=True)
            d_values = d_values.to(values.dtype)
        if ctx.needs_input_grad[2]:
            d_W_dec = weight_gradient(ctx.order, indices, values, grad, ctx.shape[0])
        if ctx.needs_input_grad[3]:
            d_b_dec = grad.sum(dim=0)
        return d_values, None, d_W_dec, d_b_dec, None


def values_gradient(grad: Tensor, indices: Tensor, W_dec: Tensor) -> Tensor:
    """Gradient of the values given that of the reconstructions, without a graph; [B, k]."""
    B, k = indices.shape
    rows = torch.arange(B, device=indices.device)
    # What the bag's own graph runs; torch has no other name for it.
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad.to(W_dec.dtype), W_dec, indices.reshape(-1), rows * k, rows.repeat_interleave(k), 0
    )
    found: Tensor = products.view(B, k)
    return found


def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Tensor:
    """See `lightsae_kernels.sparse_decode`."""
    if len(values) == 0:
        empty = values.sum() * W_dec.sum() * 0 + W_dec.new_zeros(0, W_dec.shape[1])
        return empty if b_dec is None else empty + b_dec
    x_hat: Tensor = SparseDecodeFunction.apply(values, indices, W_dec, b_dec, shared_by(indices))
    return x_hat


def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None
) -> Residual:
    """See `lightsae_kernels.sparse_residual`."""
    residual = x - sparse_decode(values, indices, W_dec, b_dec)
    residual = residual.to(torch.promote_types(residual.dtype, torch.float32))
    return Residual(residual, residual.square().sum(dim=1))
