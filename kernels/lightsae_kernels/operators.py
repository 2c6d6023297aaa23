"""The operations as custom operators of torch: one node each under torch.compile and export.

What a backend runs behind an operator stands in its own `operators.py`; only traced calls get here.

An operator returns neither its arguments nor None: an empty tensor stands for what is not there.
The order of the pairs by latent is an operator of its own, so that a graph makes it once for both
gradients.
"""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from lightsae_kernels.backends import choose_backend
from lightsae_kernels.checks import (
    check_decode_content,
    check_encode_content,
    require_finite,
    require_finite_activations,
)
from lightsae_kernels.cpu import operators as cpu_operators
from lightsae_kernels.types import Group, Support, Task


@custom_op("lightsae::encode_topk", mutates_args=())
def encode_topk(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int, regularizer: str | None,
    batch_active_only: bool, eps: float, indices: Tensor | None, batch_active: Tensor | None,
    group: str | None, dtype: torch.dtype, fused: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Encode; the norms of the rows and the activations that were kept come last."""
    task = _task(k, regularizer, batch_active_only, eps, dtype, keep)._replace(
        indices=indices,
        batch_active=batch_active,
        process_group=_group_of(group),
    )
    if not x.is_cuda:
        check_encode_content(x, W_enc, b_enc, b_dec, indices)
    with torch.no_grad(), torch.cuda.device_of(x):
        found, norms, kept = _backend(fused, x).encode(x, W_enc, b_enc, b_dec, task)
    if not x.is_cuda:
        require_finite_activations(found.values)
    return (
        found.values,
        found.indices if indices is None else _copy(indices),
        found.penalty,
        found.batch_active if batch_active is None else _copy(batch_active),
        x.new_empty(0) if norms is None else norms,
        x.new_empty(0) if kept is None else kept,
    )


@encode_topk.register_fake
def _(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int, regularizer: str | None,
    batch_active_only: bool, eps: float, indices: Tensor | None, batch_active: Tensor | None,
    group: str | None, dtype: torch.dtype, fused: bool, keep: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    B, N = x.shape[0], W_enc.shape[0]
    wide = torch.promote_types(dtype, torch.float32)
    has_norms = fused and regularizer == "l1_l2_ratio"
    return (
        x.new_empty(B, k, dtype=dtype),
        x.new_empty(B, k, dtype=torch.int64),
        x.new_empty((), dtype=wide),
        x.new_empty(N, dtype=torch.bool),
        x.new_empty(2, B, dtype=torch.float32) if has_norms else x.new_empty(0),
        x.new_empty(B, N, dtype=dtype) if keep else x.new_empty(0),
    )


def _remember_encoding(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, k, regularizer, batch_active_only, eps, _i, _a, _g, dtype, fused, keep = inputs
    values, indices, _, *constants = output
    ctx.asked = (k, regularizer, batch_active_only, eps, dtype, fused, keep)
    ctx.save_for_backward(*tensors, values, indices, *constants)
    ctx.mark_non_differentiable(indices, *constants)
    ctx.set_materialize_grads(False)


def _differentiate_encoding(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    d_values, _, d_penalty, *_ = gradients
    _, W_enc, *_, indices, _, _, _ = ctx.saved_tensors
    fused, needed = ctx.asked[-2], list(ctx.needs_input_grad[:4])
    order = latent_order(indices, len(W_enc), fused)
    found = encode_topk_backward(d_values, d_penalty, *ctx.saved_tensors, order, *ctx.asked, needed)
    return (*_asked_for(found, needed), *[None] * 10)


encode_topk.register_autograd(_differentiate_encoding, setup_context=_remember_encoding)


@custom_op("lightsae::encode_topk_backward", mutates_args=())
def encode_topk_backward(
    d_values: Tensor | None, d_penalty: Tensor | None, x: Tensor, W_enc: Tensor, b_enc: Tensor,
    b_dec: Tensor, values: Tensor, indices: Tensor, active: Tensor, norms: Tensor, kept: Tensor,
    order: list[Tensor], k: int, regularizer: str | None, batch_active_only: bool, eps: float,
    dtype: torch.dtype, fused: bool, keep: bool, needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, W_enc, b_enc and b_dec at the support and mask that were found."""
    task = _task(k, regularizer, batch_active_only, eps, dtype, keep)
    has_norms = fused and regularizer == "l1_l2_ratio"
    found = Support(values, indices, active, norms if has_norms else None, kept if keep else None)
    with torch.no_grad(), torch.cuda.device_of(x):
        gradients = _backend(fused, x).encode_gradients(
            x, W_enc, b_enc, b_dec, found, task, order, d_values, d_penalty, needed
        )
    d_x, d_W_enc, d_b_enc, d_b_dec = _present(gradients, (x, W_enc, b_enc, b_dec), needed)
    return d_x, d_W_enc, d_b_enc, d_b_dec


@encode_topk_backward.register_fake
def _(
    d_values: Tensor | None, d_penalty: Tensor | None, x: Tensor, W_enc: Tensor, b_enc: Tensor,
    b_dec: Tensor, *arguments: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _promised((x, W_enc, b_enc, b_dec), arguments[-1])


@custom_op("lightsae::sparse_decode", mutates_args=())
def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool
) -> Tensor:
    """Decode."""
    if not W_dec.is_cuda:
        check_decode_content(values, indices, W_dec, b_dec)
    with torch.no_grad(), torch.cuda.device_of(W_dec):
        x_hat: Tensor = _backend(fused, W_dec).sparse_decode(values, indices, W_dec, b_dec)
    return x_hat


@sparse_decode.register_fake
def _(values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool) -> Tensor:
    return W_dec.new_empty(
        values.shape[0], W_dec.shape[1], dtype=_decoded_dtype(W_dec, b_dec, fused)
    )


def _remember_decode(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, b_dec, ctx.fused = inputs
    ctx.bias_dtype = None if b_dec is None else b_dec.dtype
    ctx.save_for_backward(*tensors)


def _differentiate_decode(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_values, _, of_W_dec, of_b_dec, _ = ctx.needs_input_grad
    d_b_dec = grad.sum(dim=0).to(ctx.bias_dtype) if of_b_dec else None
    d_values, d_W_dec = _decode_gradients(ctx, grad, None, [of_values, of_W_dec])
    return d_values, None, d_W_dec, d_b_dec, None


sparse_decode.register_autograd(_differentiate_decode, setup_context=_remember_decode)


@custom_op("lightsae::sparse_residual", mutates_args=())
def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool
) -> tuple[Tensor, Tensor]:
    """Decode, subtract from x and square."""
    if not x.is_cuda:
        require_finite("x", x)
        check_decode_content(values, indices, W_dec, b_dec)
    with torch.no_grad(), torch.cuda.device_of(x):
        run = _backend(fused, x).sparse_residual
        found = run(x.contiguous(), values, indices, W_dec, b_dec)
    return found.residual, found.error


@sparse_residual.register_fake
def _(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, _decoded_dtype(W_dec, b_dec, fused))
    residual = x.new_empty(x.shape, dtype=torch.promote_types(dtype, torch.float32))
    return residual, residual.new_empty(x.shape[0])


def _remember_residual(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *tensors, b_dec, ctx.fused = inputs
    ctx.x_dtype, ctx.bias_dtype = x.dtype, None if b_dec is None else b_dec.dtype
    ctx.save_for_backward(*tensors, output[0])
    ctx.set_materialize_grads(False)


def _differentiate_residual(
    ctx: Any, d_residual: Tensor | None, d_error: Tensor | None
) -> tuple[Tensor | None, ...]:
    of_x, of_values, _, of_W_dec, of_b_dec, _ = ctx.needs_input_grad
    residual = ctx.saved_tensors[-1]
    if d_residual is None and d_error is not None:
        # The gradient is the residual, scaled by row: no kernel writes it.
        g, rows = residual, -2 * d_error
    else:
        g, rows = torch.zeros_like(residual) if d_residual is None else -d_residual, None
        if d_error is not None:
            g = g - 2 * d_error[:, None] * residual
    d_x = (-g if rows is None else -rows[:, None] * g).to(ctx.x_dtype) if of_x else None
    d_b_dec = None
    if of_b_dec:
        d_b_dec = (g.sum(dim=0) if rows is None else rows @ g).to(ctx.bias_dtype)
    d_values, d_W_dec = _decode_gradients(ctx, g, rows, [of_values, of_W_dec])
    return d_x, d_values, None, d_W_dec, d_b_dec, None


sparse_residual.register_autograd(_differentiate_residual, setup_context=_remember_residual)


@custom_op("lightsae::sparse_decode_backward", mutates_args=())
def sparse_decode_backward(
    grad: Tensor, rows: Tensor | None, values: Tensor, indices: Tensor, W_dec: Tensor,
    order: list[Tensor], fused: bool, needed: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of values and W_dec, given that of the reconstructions: grad, times `rows` [B]."""
    with torch.no_grad(), torch.cuda.device_of(grad):
        gradients = _backend(fused, grad).decode_gradients(
            grad, rows, values, indices, W_dec, order, needed
        )
    d_values, d_W_dec = _present(gradients, (values, W_dec), needed)
    return d_values, d_W_dec


@sparse_decode_backward.register_fake
def _(
    grad: Tensor, rows: Tensor | None, values: Tensor, indices: Tensor, W_dec: Tensor,
    order: list[Tensor], fused: bool, needed: list[bool],
) -> tuple[Tensor, ...]:  # fmt: skip
    return _promised((values, W_dec), needed)


@custom_op("lightsae::latent_order", mutates_args=())
def latent_order(indices: Tensor, d_sae: int, fused: bool) -> list[Tensor]:
    """The pairs of indices [B, k] sorted by latent, as the backend wants them."""
    with torch.cuda.device_of(indices):
        order: list[Tensor] = _backend(fused, indices).latent_order(indices, d_sae)
    return order


@latent_order.register_fake
def _(indices: Tensor, d_sae: int, fused: bool) -> list[Tensor]:
    sizes: list[Any] = implementation(fused).order_sizes(indices.numel(), d_sae)
    return [indices.new_empty(n, dtype=torch.int32 if fused else torch.int64) for n in sizes]


def _decode_gradients(
    ctx: Any, grad: Tensor, rows: Tensor | None, needed: list[bool]
) -> tuple[Tensor | None, ...]:
    if not any(needed):
        return None, None
    values, indices, W_dec, *_ = ctx.saved_tensors
    order = latent_order(indices, len(W_dec), ctx.fused) if needed[1] else []
    return _asked_for(
        sparse_decode_backward(grad, rows, values, indices, W_dec, order, ctx.fused, needed),
        needed,
    )


def _backend(fused: bool, tensor: Tensor) -> ModuleType:
    """Who was chosen when the graph was made; refuses a tensor on another kind of device."""
    choose_backend("triton" if fused else "cpu", tensor, dtypes=(), k=1, d_in=1)
    return implementation(fused)


def implementation(fused: bool) -> ModuleType:
    """The `operators` of the kernels or of the CPU path."""
    if not fused:
        return cpu_operators
    from lightsae_kernels.fused import operators as fused_operators

    return fused_operators


def _group_of(name: str | None) -> Group:
    if name is None:
        return None
    from torch._C._distributed_c10d import _resolve_process_group
    from torch.distributed.distributed_c10d import GroupName

    return _resolve_process_group(GroupName(name))


def _task(
    k: int, regularizer: Any, batch_active_only: bool, eps: float, dtype: torch.dtype, keep: bool
) -> Task:
    return Task(k, regularizer, batch_active_only, eps, None, None, None, dtype, keep)


def _decoded_dtype(W_dec: Tensor, b_dec: Tensor | None, fused: bool) -> torch.dtype:
    if fused or b_dec is None:
        return W_dec.dtype
    return torch.promote_types(W_dec.dtype, b_dec.dtype)


def _copy(given: Tensor) -> Tensor:
    return given.clone(memory_format=torch.contiguous_format)


def _asked_for(gradients: Iterable[Tensor], needed: list[bool]) -> tuple[Tensor | None, ...]:
    pairs = zip(gradients, needed, strict=True)
    return tuple(gradient if wanted else None for gradient, wanted in pairs)


def _present(
    gradients: Iterable[Tensor | None], leaves: Iterable[Tensor], needed: list[bool]
) -> tuple[Tensor, ...]:
    """Each in the dtype of its leaf, or empty where nobody asked."""
    return tuple(
        leaf.new_empty(0) if gradient is None or not wanted else gradient.to(leaf.dtype)
        for gradient, leaf, wanted in zip(gradients, leaves, needed, strict=True)
    )


def _promised(leaves: Iterable[Tensor], needed: list[bool]) -> tuple[Tensor, ...]:
    """What `_present` returns, without content."""
    return tuple(
        leaf.new_empty(leaf.shape if wanted else 0)
        for leaf, wanted in zip(leaves, needed, strict=True)
    )
