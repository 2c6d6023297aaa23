"""Sparse decode, and the residual it leaves: the public operations.

    x_hat_i = sum_s values[i, s] W_dec[indices[i, s]] + b_dec        residual = x - x_hat

`reference` has the definition, `gradients` what is multiplied for the gradients.

Shapes: values and indices [B, k], W_dec [d_sae, d_in], x, x_hat and residual [B, d_in].
"""

from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels import operators, reference
from lightsae_kernels.argument_checks import (
    check_decode,
    check_decode_content,
    require_countable_pairs,
    require_finite,
    require_finite_sums,
    require_one_device,
    require_shape,
)
from lightsae_kernels.backends import choose_backend, finds_faults
from lightsae_kernels.encode_plan import decode_dtype
from lightsae_kernels.gradients import PairOrder, Upstream, decode_gradients, outside_autocast
from lightsae_kernels.types import Backend, Decoder, Left, Residual


def sparse_decode(
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None = None,
    *,
    W_dec_narrow: Tensor | None = None,
    order: PairOrder | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Reconstruct from a sparse code: the weighted sum of k decoder rows per sample.

    Args:
        values: Activations, [B, k].
        indices: Their latents, [B, k] int64; a latent may occur twice, its values add.
        W_dec: Decoder, a row per latent, [d_sae, d_in]; the result has its dtype.
        b_dec: Decoder bias, [d_in], or None.
        W_dec_narrow: W_dec in autocast's dtype, where the caller has it: half the bytes to read.
        order: What the encoding that made the code got, to sort its pairs only once.
        backend: "auto", "reference" (the definition), "cpu" (fast, CPU tensors) or "triton".

    Returns:
        Reconstructions, [B, d_in], differentiable in values, W_dec and b_dec.

    Raises:
        ArgumentError: A ValueError. Shapes or indices do not fit, or an argument has NaN or inf
            (named). On a GPU wrong indices are raised by a later operation or `raise_if_flagged`.
        RuntimeError: If backend="triton" meets a CPU tensor outside the interpreter.

    Example:
        >>> import torch
        >>> sparse_decode(torch.tensor([[2.0]]), torch.tensor([[1]]), torch.eye(3, 2))
        tensor([[0., 2.]])
    """
    chosen = _backend(values, indices, W_dec, b_dec, W_dec_narrow, backend)
    if chosen is reference:
        return reference.sparse_decode(values, indices, W_dec, b_dec)
    if torch.compiler.is_compiling():
        return operators.decode(chosen, values, indices, W_dec, b_dec)
    x_hat: Tensor = DecodeFunction.apply(
        values, indices, W_dec, b_dec, W_dec_narrow, decode_dtype(W_dec), order or PairOrder(),
        chosen,
    )  # fmt: skip
    return x_hat


class DecodeFunction(torch.autograd.Function):
    """A backend's decode; sparse gradients."""

    @staticmethod
    @outside_autocast
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None,
        narrow: Tensor | None, dtype: torch.dtype, order: PairOrder, backend: ModuleType,
    ) -> Tensor:  # fmt: skip
        """Reconstructions of the batch."""
        ctx.dtype, ctx.order, ctx.backend = dtype, order, backend
        ctx.save_for_backward(values, indices, W_dec, narrow, None)
        with torch.cuda.device_of(W_dec):
            decoder = Decoder(W_dec, b_dec, dtype, narrow)
            x_hat: Tensor = backend.decode_forward(values, indices, decoder)
        return x_hat

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, W_dec and b_dec."""
        of_values, _, of_W_dec, of_b_dec, *_ = ctx.needs_input_grad
        upstream = Upstream(grad.contiguous())
        d_values, d_W_dec = _gradients(ctx, upstream, (of_values, of_W_dec))
        d_b_dec = upstream.sum() if of_b_dec else None
        return d_values, None, d_W_dec, d_b_dec, *[None] * 4


def sparse_residual(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None = None,
    *,
    used: Tensor | None = None,
    W_dec_narrow: Tensor | None = None,
    order: PairOrder | None = None,
    backend: Backend = "auto",
) -> Residual:
    """Decode, subtract from x and square, in one pass where the backend can.

    Args:
        x: What the code stands for, [B, d_in].
        values: Activations, [B, k].
        indices: Their latents, [B, k] int64; a latent may occur twice, its values add.
        W_dec: Decoder, a row per latent, [d_sae, d_in].
        b_dec: Decoder bias, [d_in], or None.
        used: Places that count, [B, k] bool, where values are 0 at all others; these get no
            gradient. It spares the CPU the places of a rule that fills rows unequally.
        W_dec_narrow: As in `sparse_decode`.
        order: As in `sparse_decode`.
        backend: As in `sparse_decode`.

    Returns:
        `Residual`: x - x_hat [B, d_in], and its squared norm per row [B], both at least float32 and
        differentiable in x, values, W_dec and b_dec.

    Raises:
        ArgumentError: A ValueError; as in `sparse_decode`.
        RuntimeError: If backend="triton" meets a CPU tensor outside the interpreter.

    Example:
        >>> import torch
        >>> x, W = torch.tensor([[1.0, 2.0]]), torch.eye(3, 2)
        >>> sparse_residual(x, torch.tensor([[2.0]]), torch.tensor([[1]]), W)
        Residual(residual=tensor([[1., 0.]]), error=tensor([1.]))
    """
    require_shape("W_dec", W_dec, (None, None), "[d_sae, d_in]")
    B, d_in = len(values), W_dec.shape[1]
    require_shape("x", x, (B, d_in), "[B = {0}, d_in = {1}]")
    require_one_device(x=x, values=values)
    chosen = _backend(values, indices, W_dec, b_dec, W_dec_narrow, backend, x.dtype)
    compiling = torch.compiler.is_compiling()
    if compiling and chosen is not reference:
        return operators.residual(chosen, x, values, indices, W_dec, b_dec)
    looked_at = not compiling and not finds_faults(chosen, W_dec)
    if looked_at:
        require_finite("x", x)
    if chosen is reference:
        found = reference.sparse_residual(x, values, indices, W_dec, b_dec)
    else:
        decoder = (W_dec, b_dec, W_dec_narrow, decode_dtype(W_dec))
        arguments = (x, values, indices, used, *decoder, order or PairOrder(), chosen)
        found = Residual(*ResidualFunction.apply(*arguments))
    if looked_at:
        require_finite_sums("squared error", found.error)
    return found


class ResidualFunction(torch.autograd.Function):
    """A backend's decode, subtracted and squared; sparse gradients."""

    @staticmethod
    @outside_autocast
    def forward(
        ctx: Any, x: Tensor, values: Tensor, indices: Tensor, used: Tensor | None, W_dec: Tensor,
        b_dec: Tensor | None, narrow: Tensor | None, dtype: torch.dtype, order: PairOrder,
        backend: ModuleType,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Residual and squared error of the batch."""
        with torch.cuda.device_of(x):
            decoder = Decoder(W_dec, b_dec, dtype, narrow)
            left: Left = backend.residual_forward(x, values, indices, decoder, used=used)
        ctx.dtype, ctx.order, ctx.backend = dtype, order, backend
        ctx.save_for_backward(values, indices, W_dec, narrow, used, left.residual, left.narrow)
        ctx.set_materialize_grads(False)
        return left.residual, left.error

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_residual: Tensor | None, d_error: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, values, W_dec and b_dec."""
        of_x, of_values, _, _, of_W_dec, of_b_dec, *_ = ctx.needs_input_grad
        *_, residual, narrow = ctx.saved_tensors
        upstream = Upstream.of(residual, narrow, d_residual, d_error)
        d_values, d_W_dec = _gradients(ctx, upstream, (of_values, of_W_dec))
        d_x = -upstream.by_row(upstream.g) if of_x else None
        d_b_dec = upstream.sum() if of_b_dec else None
        return d_x, d_values, None, None, d_W_dec, d_b_dec, *[None] * 4


def _gradients(
    ctx: Any, upstream: Upstream, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    values, indices, W_dec, narrow, used, *_ = ctx.saved_tensors
    order = partial(ctx.order.of, indices, len(W_dec), ctx.backend.latent_order, used)
    decoder = Decoder(W_dec, None, ctx.dtype, narrow)
    return decode_gradients(ctx.backend, upstream, values, indices, decoder, order, needed, used)


def _backend(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, narrow: Tensor | None,
    backend: Backend, *dtypes: torch.dtype,
) -> ModuleType:  # fmt: skip
    """Check the arguments of a decode and choose who does it."""
    check_decode(values, indices, W_dec, b_dec, narrow)
    dtypes = (values.dtype, W_dec.dtype, decode_dtype(W_dec), *dtypes)
    sizes = {"k": values.shape[1], "d_in": W_dec.shape[1]}
    chosen = choose_backend(backend, W_dec, dtypes=dtypes, **sizes)
    if torch.compiler.is_compiling():
        return chosen
    if chosen is not reference:
        require_countable_pairs(chosen, *values.shape)
    if not finds_faults(chosen, W_dec):
        check_decode_content(values, indices, W_dec, b_dec)
    return chosen
