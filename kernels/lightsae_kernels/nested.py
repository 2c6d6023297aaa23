"""The residuals of nested parts of a sparse code: the public operation.

    x_hat[p, i] = b_dec + sum of values[i, s] W_dec[indices[i, s]] over the places s of level <= p
    errors[p, i] = ||x_i - x_hat[p, i]||^2

Matryoshka prefixes have the level of a latent's prefix (arXiv 2503.17547), Multi-TopK that of a
place's rank (arXiv 2406.04093).

`reference` has the definition.

Shapes: values, indices and levels [B, k], W_dec [d_sae, d_in], x [B, d_in], P parts.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels import cpu, reference
from lightsae_kernels.argument_checks import (
    ArgumentError,
    check_decode,
    check_decode_content,
    require_finite,
    require_finite_sums,
    require_int64,
    require_one_device,
    require_shape,
)
from lightsae_kernels.backends import choose_backend, finds_faults
from lightsae_kernels.decode import sparse_decode
from lightsae_kernels.encode_plan import decode_dtype
from lightsae_kernels.gradients import PairOrder, outside_autocast
from lightsae_kernels.types import Backend, Decoder, NestedResidual


def nested_residual(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    levels: Tensor,
    parts: int,
    W_dec: Tensor,
    b_dec: Tensor | None = None,
    *,
    used: Tensor | None = None,
    W_dec_narrow: Tensor | None = None,
    order: PairOrder | None = None,
    backend: Backend = "auto",
) -> NestedResidual:
    """Decode nested parts of a code, and take each from x.

    On the CPU every place is decoded once, whatever the number of parts. On a GPU each part is a
    decode of its own.

    Args:
        x: What the code stands for, [B, d_in].
        values: Activations, [B, k].
        indices: Their latents, [B, k] int64.
        levels: The first part that a place belongs to, [B, k] int64; it belongs to all that follow.
        parts: How many there are, P; all levels are below.
        W_dec: Decoder, a row per latent, [d_sae, d_in].
        b_dec: Decoder bias, [d_in], or None; part of every reconstruction.
        used: As in `sparse_residual`.
        W_dec_narrow: As in `sparse_decode`.
        order: As in `sparse_decode`.
        backend: As in `sparse_decode`.

    Returns:
        `NestedResidual`: the residual of the last part, [B, d_in], and the squared norms of all,
        [P, B], both at least float32 and differentiable in x, values, W_dec and b_dec.

    Raises:
        ArgumentError: A ValueError; as in `sparse_residual`, or a level is not below P.
        RuntimeError: If backend="triton" meets a CPU tensor outside the interpreter.

    Example:
        >>> import torch
        >>> values, indices = torch.tensor([[2.0, 3.0]]), torch.tensor([[0, 1]])
        >>> left = nested_residual(torch.tensor([[2.0, 4.0]]), values, indices, indices, 2,
        ...                        torch.eye(2))
        >>> left.errors.T, left.residual
        (tensor([[16.,  1.]]), tensor([[0., 1.]]))
    """
    check_decode(values, indices, W_dec, b_dec, W_dec_narrow)
    require_shape("x", x, (len(values), W_dec.shape[1]), "[B = {0}, d_in = {1}]")
    require_shape("levels", levels, tuple(values.shape), "[B, k] = [{0}, {1}]")
    require_int64(levels)
    require_one_device(x=x, values=values, levels=levels)
    if type(parts) is not int or parts < 1:
        raise ArgumentError(f"parts must be an integer of at least 1, got {parts!r}")
    dtypes = (values.dtype, W_dec.dtype, decode_dtype(W_dec), x.dtype)
    sizes = {"k": values.shape[1], "d_in": W_dec.shape[1]}
    chosen = choose_backend(backend, W_dec, dtypes=dtypes, **sizes)
    compiling = torch.compiler.is_compiling()
    looked_at = not compiling and not finds_faults(chosen, W_dec)
    if looked_at:
        check_decode_content(values, indices, W_dec, b_dec)
        require_finite("x", x)
        if levels.numel() and not 0 <= int(levels.min()) <= int(levels.max()) < parts:
            raise ArgumentError(f"levels must lie in [0, parts = {parts})")
    if chosen is reference:
        found = reference.nested_residual(x, values, indices, levels, parts, W_dec, b_dec)
    elif chosen is cpu and not compiling:
        found = NestedResidual(*NestedResidualFunction.apply(
            x, values, indices, levels, used, W_dec, b_dec, parts, order or PairOrder()
        ))  # fmt: skip
    else:
        decode = partial(sparse_decode, W_dec_narrow=W_dec_narrow, order=order, backend=backend)
        found = _by_decodes(decode, x, values, indices, levels, parts, W_dec, b_dec)
    if looked_at:
        require_finite_sums("squared error", found.errors)
    return found


def _by_decodes(
    decode: Any, x: Tensor, values: Tensor, indices: Tensor, levels: Tensor, parts: int,
    W_dec: Tensor, b_dec: Tensor | None,
) -> NestedResidual:  # fmt: skip
    """Take what each level adds from what the level before has left."""
    residual = x.to(torch.promote_types(x.dtype, torch.float32))
    errors = []
    for part in range(parts):
        bias = b_dec if part == 0 else None
        residual = residual - decode(values.where(levels == part, 0.0), indices, W_dec, bias)
        errors.append(residual.square().sum(dim=1))
    return NestedResidual(residual, torch.stack(errors))


class NestedResidualFunction(torch.autograd.Function):
    """The residuals of all parts from one decode of every place, on the CPU."""

    @staticmethod
    @outside_autocast
    def forward(
        ctx: Any, x: Tensor, values: Tensor, indices: Tensor, levels: Tensor, used: Tensor | None,
        W_dec: Tensor, b_dec: Tensor | None, parts: int, order: PairOrder,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Residual of the last part [B, d_in] and squared norms of all [P, B]."""
        residuals = cpu.nested_residuals(x, values, indices, levels, parts, W_dec, b_dec, used)
        ctx.order, ctx.has_bias = order, b_dec is not None
        ctx.save_for_backward(values, indices, levels, used, W_dec, residuals)
        ctx.set_materialize_grads(False)
        return residuals[:, -1].clone(), residuals.square().sum(dim=2).t()

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_residual: Tensor | None, d_errors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, values, W_dec and b_dec."""
        values, indices, levels, used, W_dec, residuals = ctx.saved_tensors
        of_x, of_values, _, _, _, of_W_dec, of_b_dec, *_ = ctx.needs_input_grad
        # Of the reconstruction by each part, then of what each level adds to all that follow.
        g = torch.zeros_like(residuals) if d_errors is None else (
            residuals * (-2 * d_errors.t().unsqueeze(2))
        )  # fmt: skip
        if d_residual is not None:
            g[:, -1] -= d_residual
        cpu.add_later_parts_(g)
        d_values = d_W_dec = None
        decoder = Decoder(W_dec, None, W_dec.dtype)
        if of_values:
            d_values = cpu.nested_values_gradient(g, indices, levels, decoder, used)
        if of_W_dec:
            sorted_pairs = ctx.order.of(indices, len(W_dec), cpu.latent_order, used)
            d_W_dec = cpu.nested_decoder_gradient(g, sorted_pairs, values, levels)
        total = g[:, 0]
        d_b_dec = total.sum(dim=0) if of_b_dec else None
        return -total if of_x else None, d_values, None, None, None, d_W_dec, d_b_dec, None, None
