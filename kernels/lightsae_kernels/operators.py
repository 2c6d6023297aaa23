"""The operations as custom operators of torch: one node each under torch.compile and export.

`encode`, `decode` and `residual` are what the public operations call while a graph is made; only
traced calls get here. An operator runs the forward and backward functions of its backend, as eager
calls do.

An operator returns neither its arguments nor None: an empty tensor stands for what is not there.
The order of the pairs by latent is an operator of its own, so that a graph makes it once for both
gradients.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from lightsae_kernels import cpu
from lightsae_kernels.argument_checks import (
    check_decode_content,
    check_encode_content,
    require_countable_pairs,
    require_finite,
    require_finite_activations,
)
from lightsae_kernels.backends import choose_backend
from lightsae_kernels.encode_plan import EncodePlan, decode_dtype
from lightsae_kernels.gradients import Upstream, decode_gradients, encode_gradients
from lightsae_kernels.types import (
    Decoder,
    Encoded,
    Encoder,
    Encoding,
    Group,
    Left,
    Residual,
)

# An EncodePlan and the backend, as `_packed` and `_unpacked` have them.
_PLAN = (
    "int k, str? regularizer, bool batch_active_only, float eps, Tensor? indices, "
    "Tensor? batch_active, str? group, ScalarType dtype, bool fused, bool keep"
)
_PLAN_LENGTH = 10
_ENCODER = "Tensor x, Tensor W_enc, Tensor b_enc, Tensor b_dec"


def encode(
    backend: ModuleType, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, plan: EncodePlan
) -> Encoded:
    """See `lightsae_kernels.encode_topk`."""
    if backend is cpu:
        # The activations are made once more in the backward pass: a graph has no scratch buffer.
        plan = plan.keeping(False)
    values, indices, penalty, active, *_ = encode_topk(
        x, W_enc, b_enc, b_dec, *_packed(plan, backend)
    )
    return Encoded(
        values,
        indices if plan.indices is None else plan.indices,
        penalty,
        active if plan.batch_active is None else plan.batch_active,
    )


def decode(
    backend: ModuleType, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None
) -> Tensor:
    """See `lightsae_kernels.sparse_decode`."""
    dtype, fused = decode_dtype(W_dec), backend is not cpu
    x_hat: Tensor = sparse_decode(values, indices, W_dec, b_dec, fused, dtype)
    return x_hat


def residual(
    backend: ModuleType, x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor,
    b_dec: Tensor | None,
) -> Residual:  # fmt: skip
    """See `lightsae_kernels.sparse_residual`."""
    dtype, fused = decode_dtype(W_dec), backend is not cpu
    return Residual(*sparse_residual(x, values, indices, W_dec, b_dec, fused, dtype))


def _packed(plan: EncodePlan, backend: ModuleType) -> tuple[Any, ...]:
    group = None if plan.process_group is None else plan.process_group.group_name
    return (
        plan.k, plan.regularizer, plan.batch_active_only, plan.eps, plan.indices,
        plan.batch_active, group, plan.dtype, backend is not cpu, plan.keep,
    )  # fmt: skip


def _unpacked(packed: Sequence[Any]) -> tuple[EncodePlan, bool]:
    """The plan, and whether the kernels were chosen."""
    k, regularizer, masked, eps, indices, active, group, dtype, fused, keep = packed
    ranks = _group_of(group)
    plan = EncodePlan(k, dtype, regularizer, masked, eps, indices, active, ranks, keep=keep)
    return plan, fused


@custom_op(
    "lightsae::encode_topk", mutates_args=(),
    schema=f"({_ENCODER}, {_PLAN}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)  # fmt: skip
def encode_topk(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, *packed: Any
) -> tuple[Tensor, ...]:
    """Encode; the norms of the rows and the activations that were kept come last."""
    plan, fused = _unpacked(packed)
    if not x.is_cuda:
        check_encode_content(x, W_enc, b_enc, b_dec, plan)
    backend = _backend(fused, x)
    with _alone(x):
        centred = backend.centre(x, b_dec, plan.dtype)
        found: Encoding = backend.encode_forward(centred, Encoder(W_enc, b_enc), plan)
    if not x.is_cuda:
        require_finite_activations(found.values)
    return (
        found.values,
        found.indices if plan.indices is None else _copy(plan.indices),
        found.penalty,
        found.active if plan.batch_active is None else _copy(plan.batch_active),
        x.new_empty(0) if found.norms is None else found.norms,
        x.new_empty(0) if found.kept is None else found.kept,
    )


@encode_topk.register_fake
def _(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, *packed: Any) -> tuple[Tensor, ...]:
    plan, _ = _unpacked(packed)
    B, N = x.shape[0], W_enc.shape[0]
    wide = torch.promote_types(plan.dtype, torch.float32)
    return (
        x.new_empty(B, plan.k, dtype=plan.dtype),
        x.new_empty(B, plan.k, dtype=torch.int64),
        x.new_empty((), dtype=wide),
        x.new_empty(N, dtype=torch.bool),
        x.new_empty(2, B, dtype=wide) if plan.regularizer == "l1_l2_ratio" else x.new_empty(0),
        x.new_empty(B, N, dtype=plan.dtype) if plan.keep else x.new_empty(0),
    )


def _remember_encoding(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, packed = inputs[:4], inputs[4:]
    values, indices, _, *constants = output
    *ctx.asked, given, _, ctx.group, ctx.dtype, ctx.fused, ctx.keep = packed
    ctx.given = given is not None
    ctx.save_for_backward(*tensors, values, indices, *constants)
    ctx.mark_non_differentiable(indices, *constants)
    ctx.set_materialize_grads(False)


def _differentiate_encoding(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    d_values, _, d_penalty, *_ = gradients
    _, W_enc, *_, indices, _, _, _ = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[:4])
    order = latent_order(indices, len(W_enc), ctx.fused)
    given = indices if ctx.given else None
    packed = (*ctx.asked, given, None, ctx.group, ctx.dtype, ctx.fused, ctx.keep)
    found = encode_topk_backward(d_values, d_penalty, *ctx.saved_tensors, order, *packed, needed)
    return (*_asked_for(found, needed), *[None] * _PLAN_LENGTH)


encode_topk.register_autograd(_differentiate_encoding, setup_context=_remember_encoding)


@custom_op(
    "lightsae::encode_topk_backward", mutates_args=(),
    schema=f"(Tensor? d_values, Tensor? d_penalty, {_ENCODER}, Tensor values, Tensor support, "
    f"Tensor active, Tensor norms, Tensor kept, Tensor[] order, {_PLAN}, bool[] needed) -> "
    "(Tensor, Tensor, Tensor, Tensor)",
)  # fmt: skip
def encode_topk_backward(
    d_values: Tensor | None, d_penalty: Tensor | None, x: Tensor, W_enc: Tensor, b_enc: Tensor,
    b_dec: Tensor, values: Tensor, support: Tensor, active: Tensor, norms: Tensor, kept: Tensor,
    order: list[Tensor], *arguments: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, W_enc, b_enc and b_dec at the support and mask that were found."""
    *packed, needed = arguments
    plan, fused = _unpacked(packed)
    backend = _backend(fused, x)
    found = Encoding(
        values, support, values.new_empty(()), active,
        norms if plan.regularizer == "l1_l2_ratio" else None, kept if plan.keep else None,
    )  # fmt: skip
    with _alone(x):
        d, d_b_dec = encode_gradients(
            backend, backend.centre(x, b_dec, plan.dtype), Encoder(W_enc, b_enc), found, plan,
            lambda: backend.LatentOrder(*order), d_values, d_penalty, needed,
        )  # fmt: skip
    return _present((d.x, d.W_enc, d.b_enc, d_b_dec), (x, W_enc, b_enc, b_dec), needed)


@encode_topk_backward.register_fake
def _(
    d_values: Tensor | None, d_penalty: Tensor | None, x: Tensor, W_enc: Tensor, b_enc: Tensor,
    b_dec: Tensor, *arguments: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _promised((x, W_enc, b_enc, b_dec), arguments[-1])


@custom_op("lightsae::sparse_decode", mutates_args=())
def sparse_decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool,
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Decode; rows of W_dec are rounded to the dtype, None for its own."""
    if not W_dec.is_cuda:
        check_decode_content(values, indices, W_dec, b_dec)
    backend = _backend(fused, W_dec)
    with _alone(W_dec):
        decoder = Decoder(W_dec, b_dec, dtype or W_dec.dtype)
        x_hat: Tensor = backend.decode_forward(values, indices, decoder)
    return x_hat


@sparse_decode.register_fake
def _(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool,
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    return W_dec.new_empty(
        values.shape[0], W_dec.shape[1], dtype=_decoded_dtype(W_dec, b_dec, fused)
    )


def _remember_decode(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, b_dec, ctx.fused, ctx.dtype = inputs
    ctx.bias_dtype = None if b_dec is None else b_dec.dtype
    ctx.save_for_backward(*tensors)


def _differentiate_decode(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_values, _, of_W_dec, of_b_dec, *_ = ctx.needs_input_grad
    upstream = Upstream(grad)
    d_values, d_W_dec = _decode_gradients(ctx, upstream, [of_values, of_W_dec])
    d_b_dec = upstream.sum().to(ctx.bias_dtype) if of_b_dec else None
    return d_values, None, d_W_dec, d_b_dec, None, None


sparse_decode.register_autograd(_differentiate_decode, setup_context=_remember_decode)


@custom_op("lightsae::sparse_residual", mutates_args=())
def sparse_residual(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Decode, subtract from x and square."""
    if not x.is_cuda:
        require_finite("x", x)
        check_decode_content(values, indices, W_dec, b_dec)
    backend = _backend(fused, x)
    with _alone(x):
        decoder = Decoder(W_dec, b_dec, dtype or W_dec.dtype)
        left: Left = backend.residual_forward(x.contiguous(), values, indices, decoder)
    return left.residual, left.error


@sparse_residual.register_fake
def _(
    x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, fused: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    wide = torch.promote_types(x.dtype, _decoded_dtype(W_dec, b_dec, fused))
    residual = x.new_empty(x.shape, dtype=torch.promote_types(wide, torch.float32))
    return residual, residual.new_empty(x.shape[0])


def _remember_residual(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *tensors, b_dec, ctx.fused, ctx.dtype = inputs
    ctx.x_dtype, ctx.bias_dtype = x.dtype, None if b_dec is None else b_dec.dtype
    ctx.save_for_backward(*tensors, output[0])
    ctx.set_materialize_grads(False)


def _differentiate_residual(
    ctx: Any, d_residual: Tensor | None, d_error: Tensor | None
) -> tuple[Tensor | None, ...]:
    of_x, of_values, _, of_W_dec, of_b_dec, *_ = ctx.needs_input_grad
    upstream = Upstream.of(ctx.saved_tensors[-1], None, d_residual, d_error)
    d_values, d_W_dec = _decode_gradients(ctx, upstream, [of_values, of_W_dec])
    d_x = -upstream.by_row(upstream.g).to(ctx.x_dtype) if of_x else None
    d_b_dec = upstream.sum().to(ctx.bias_dtype) if of_b_dec else None
    return d_x, d_values, None, d_W_dec, d_b_dec, None, None


sparse_residual.register_autograd(_differentiate_residual, setup_context=_remember_residual)


@custom_op("lightsae::sparse_decode_backward", mutates_args=())
def sparse_decode_backward(
    grad: Tensor, rows: Tensor | None, values: Tensor, indices: Tensor, W_dec: Tensor,
    order: list[Tensor], fused: bool, needed: list[bool], dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of values and W_dec, given that of the reconstructions: grad, times `rows` [B]."""
    backend, decoder = _backend(fused, grad), Decoder(W_dec, None, dtype or W_dec.dtype)
    grad = grad.contiguous()
    narrow = None
    if fused and rows is not None and decoder.dtype.itemsize == 2:
        # A residual, in the dtype in which eager calls have it beside them.
        narrow = grad.to(decoder.dtype)
    upstream = Upstream(grad, rows, narrow)
    with _alone(grad):
        gradients = decode_gradients(
            backend, upstream, values, indices, decoder, lambda: backend.LatentOrder(*order),
            needed,
        )  # fmt: skip
    d_values, d_W_dec = _present(gradients, (values, W_dec), needed)
    return d_values, d_W_dec


@sparse_decode_backward.register_fake
def _(
    grad: Tensor, rows: Tensor | None, values: Tensor, indices: Tensor, W_dec: Tensor,
    order: list[Tensor], fused: bool, needed: list[bool], dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _promised((values, W_dec), needed)


@custom_op("lightsae::latent_order", mutates_args=())
def latent_order(indices: Tensor, d_sae: int, fused: bool) -> list[Tensor]:
    """The pairs of indices [B, k] sorted by latent, as the backend wants them."""
    backend = _backend(fused, indices)
    require_countable_pairs(backend, *indices.shape)
    with torch.cuda.device_of(indices):
        order = backend.latent_order(indices, d_sae)
    return [part for part in order if isinstance(part, Tensor)]


@latent_order.register_fake
def _(indices: Tensor, d_sae: int, fused: bool) -> list[Tensor]:
    backend = _implementation(fused)
    sizes: list[Any] = backend.order_sizes(indices.numel(), d_sae)
    return [indices.new_empty(n, dtype=backend.ORDER_DTYPE) for n in sizes]


def _decode_gradients(
    ctx: Any, upstream: Upstream, needed: list[bool]
) -> tuple[Tensor | None, ...]:
    if not any(needed):
        return None, None
    values, indices, W_dec, *_ = ctx.saved_tensors
    order = latent_order(indices, len(W_dec), ctx.fused) if needed[1] else []
    code, asked = (values, indices, W_dec, order), (ctx.fused, needed, ctx.dtype)
    found = sparse_decode_backward(upstream.g, upstream.rows, *code, *asked)
    return _asked_for(found, needed)


def _backend(fused: bool, tensor: Tensor) -> ModuleType:
    """Who was chosen when the graph was made; refuses a tensor on another kind of device."""
    choose_backend("triton" if fused else "cpu", tensor, dtypes=(), k=1, d_in=1)
    return _implementation(fused)


def _implementation(fused: bool) -> ModuleType:
    if not fused:
        return cpu
    from lightsae_kernels import fused as kernels

    return kernels


@contextmanager
def _alone(tensor: Tensor) -> Iterator[None]:
    """Without gradients, on the device of a tensor, in the dtypes that are there."""
    unmixed = torch.autocast(tensor.device.type, enabled=False)
    with torch.no_grad(), torch.cuda.device_of(tensor), unmixed:
        yield


def _group_of(name: str | None) -> Group:
    if name is None:
        return None
    from torch._C._distributed_c10d import _resolve_process_group
    from torch.distributed.distributed_c10d import GroupName

    return _resolve_process_group(GroupName(name))


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
