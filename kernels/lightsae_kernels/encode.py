"""Encode, and encode with the residual that the code leaves: the public operations.

    a = ReLU(W_enc (x - b_dec) + b_enc)      each row keeps its k largest       (arXiv 2606.27321)

`reference` has the definition, `gradients` what is multiplied for the gradients.

Shapes: x [B, d_in], W_enc and W_dec [d_sae, d_in], values and indices [B, k].
"""

from functools import partial
from types import ModuleType
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightsae_kernels import operators, reference
from lightsae_kernels.argument_checks import (
    check_encode,
    check_encode_content,
    require_countable_pairs,
    require_cpu_above,
    require_finite,
    require_finite_activations,
    require_finite_sums,
    require_one_device,
    require_shape,
)
from lightsae_kernels.backends import choose_backend, finds_faults
from lightsae_kernels.decode import sparse_residual
from lightsae_kernels.encode_plan import EncodePlan, product_dtype
from lightsae_kernels.gradients import (
    PairOrder,
    Upstream,
    encode_gradients,
    encode_residual_gradients,
    outside_autocast,
    unused_and_counted,
)
from lightsae_kernels.types import (
    Backend,
    Decoder,
    Encoded,
    EncodeOptions,
    Encoder,
    Encoding,
    FusedRegularizer,
    Group,
    Left,
    Narrow,
    Residual,
)


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
    bank: int | None = None,
    above: Tensor | None = None,
    narrow: Narrow | None = None,
    W_enc_narrow: Tensor | None = None,
    order: PairOrder | None = None,
    backend: Backend = "auto",
) -> Encoded:
    """Encode a batch to its k largest activations, with a pre-Top-k regularizer (arXiv 2606.27321).

    a = ReLU(W_enc (x - b_dec) + b_enc); each row keeps its k largest, ties to the lowest index,
    rows with fewer than k positives filled with zeros at the lowest free indices.
    Differentiable in x and in every parameter; the support and the mask are constants.

    Args:
        x: Inputs, [B, d_in], float16, bfloat16, float32 or float64.
        W_enc: Encoder, a row per latent, [d_sae, d_in].
        b_enc: Encoder bias, [d_sae].
        b_dec: Decoder bias, subtracted from x, [d_in].
        k: Latents kept per row, 1 <= k <= d_sae.
        regularizer: "off_support_l1" (Reg 1), "l1_l2_ratio" (Reg 2) or None.
        batch_active_only: Restrict the regularizer to latents selected somewhere in the batch.
        eps: Added to the l2 norm of Reg 2. A row whose squares all underflow counts 0.
        indices: Use this support, [B, k] int64, instead of selecting one.
        batch_active: Use this mask, [d_sae] bool, instead of the batch's own.
        process_group: Ranks over which the mask is the union; None for this process alone.
        bank: Select k bank / d_sae of every `bank` consecutive latents instead of k of them all.
        above: Select every activation above this, scalar or [d_sae], instead of k of each row; what
            is below 0 counts as 0. The result has as many places as the fullest row takes, in the
            order of the latents. For CPU tensors.
        narrow: Called with values and indices of what was selected, [B, k]; says which of it stays,
            [B, k] bool. The others count as not selected; their places, where they keep them, have
            a value of 0. Without a regularizer a CPU leaves them out, with as many places as the
            fullest row takes. A graph of torch.compile runs the definition with `bank`, `above` or
            `narrow`.
        W_enc_narrow: W_enc in the dtype of the product, where the caller has it; else it is cast.
        order: What the decode of this code also gets, to sort its pairs only once.
        backend: "auto", "reference" (the definition), "cpu" (fast, CPU tensors) or "triton".

    Returns:
        `Encoded`: values [B, k], indices [B, k] int64 (fewer or more places with `above` or
            `narrow`), penalty scalar (mean over the B samples, so
        a weight means the same at any batch size), batch_active [d_sae] bool.

    Raises:
        ArgumentError: A ValueError. A shape or k does not fit, x or a parameter has NaN or inf
            (named), or the activations overflow the dtype. On a GPU the last two are raised by a
            later operation or by `raise_if_flagged`, without a name. Or the kernels get 2^31 pairs
            of sample and latent or more.
        RuntimeError: If backend="triton" meets a CPU tensor outside the interpreter.

    Example:
        >>> import torch
        >>> x, W = torch.tensor([[1.0, 2.0]]), torch.eye(3, 2)
        >>> code = encode_topk(x, W, torch.zeros(3), torch.zeros(2), 1, regularizer="l1_l2_ratio")
        >>> code.values, code.indices
        (tensor([[2.]]), tensor([[1]]))
        >>> code.penalty  # one batch-active latent: l1 equals l2
        tensor(1.)
    """
    plan = EncodePlan(
        k, product_dtype(x), regularizer, batch_active_only, eps, indices, batch_active,
        process_group, bank, above, narrow,
    )  # fmt: skip
    check_encode(x, W_enc, b_enc, b_dec, plan, W_enc_narrow)
    chosen = choose_backend(backend, x, dtypes=(plan.dtype,), k=k, d_in=x.shape[1])
    plain = bank is None and above is None and narrow is None
    if torch.compiler.is_compiling() and not plain:
        chosen = reference
    require_cpu_above(chosen, above)
    if chosen is not reference:
        if not torch.compiler.is_compiling():
            require_countable_pairs(chosen, len(x), k)
        plan = plan.keeping(chosen.keeps(plan, _differentiated(x, W_enc, b_enc, b_dec)))
        if torch.compiler.is_compiling():
            return operators.encode(chosen, x, W_enc, b_enc, b_dec, plan)
    looked_at = not torch.compiler.is_compiling() and not finds_faults(chosen, x)
    if looked_at:
        check_encode_content(x, W_enc, b_enc, b_dec, plan)
    if chosen is reference:
        encoded = reference.encode_topk(x, W_enc, b_enc, b_dec, k, **plan.options)
    else:
        parts = EncodeFunction.apply(
            x, W_enc, b_enc, b_dec, W_enc_narrow, plan, order or PairOrder(), chosen
        )
        encoded = _encoded(parts, indices)
    if looked_at:
        require_finite_activations(encoded.values)
        require_finite_sums("penalty", encoded.penalty)
    return encoded


class EncodeFunction(torch.autograd.Function):
    """A backend's encoding; the backward pass is at the selected support and mask."""

    @staticmethod
    @outside_autocast
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, narrow: Tensor | None,
        plan: EncodePlan, order: PairOrder, backend: ModuleType,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Values, indices, penalty, mask and used places of the batch."""
        encoder = Encoder(W_enc, b_enc, narrow)
        with torch.cuda.device_of(x):
            centred = backend.centre(x, b_dec, plan.dtype)
            found: Encoding = backend.encode_forward(centred, encoder, plan)
        _remember(ctx, centred, encoder, found, plan, order, backend)
        return _selected(found, plan)

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None, _u: None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, W_enc, b_enc and b_dec."""
        centred, encoder, found, order, _ = _recall(ctx, d_penalty)
        d, d_b_dec = encode_gradients(
            ctx.backend, centred, encoder, found, ctx.plan, order, d_values, d_penalty,
            ctx.needs_input_grad[:4],
        )  # fmt: skip
        return d.x, d.W_enc, d.b_enc, d_b_dec, None, None, None, None


def encode_residual(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    k: int,
    *,
    W_enc_narrow: Tensor | None = None,
    W_dec_narrow: Tensor | None = None,
    backend: Backend = "auto",
    **options: Unpack[EncodeOptions],
) -> tuple[Encoded, Residual]:
    """Encode, decode and subtract: `encode_topk` and `sparse_residual` with one backward pass.

    Both weight gradients are sums over the same pairs of sample and latent; a backend that can
    makes them in one pass.

    Args:
        x: Inputs, [B, d_in], float16, bfloat16, float32 or float64.
        W_enc: Encoder, a row per latent, [d_sae, d_in].
        b_enc: Encoder bias, [d_sae].
        W_dec: Decoder, a row per latent, [d_sae, d_in].
        b_dec: Decoder bias, subtracted from x and added to the reconstruction, [d_in].
        k: Latents kept per row, 1 <= k <= d_sae.
        W_enc_narrow: As in `encode_topk`.
        W_dec_narrow: As in `sparse_decode`.
        backend: "auto", "reference" (the definition), "cpu" (fast, CPU tensors) or "triton".
        options: The keyword arguments of `encode_topk`.

    Returns:
        `Encoded` and `Residual`, differentiable in x and in every parameter.

    Raises:
        ArgumentError: A ValueError; as in `encode_topk` and `sparse_residual`.
        RuntimeError: If backend="triton" meets a CPU tensor outside the interpreter.

    Example:
        >>> import torch
        >>> x, W = torch.tensor([[1.0, 2.0]]), torch.eye(3, 2)
        >>> encoded, left = encode_residual(x, W, torch.zeros(3), W, torch.zeros(2), 1)
        >>> encoded.indices, left.residual
        (tensor([[1]]), tensor([[1., 0.]]))
    """
    if torch.compiler.is_compiling():
        encoded = encode_topk(x, W_enc, b_enc, b_dec, k, backend=backend, **options)
        code = encoded.values, encoded.indices
        return encoded, sparse_residual(x, *code, W_dec, b_dec, backend=backend)
    plan = EncodePlan(k, product_dtype(x), **options)
    check_encode(x, W_enc, b_enc, b_dec, plan, W_enc_narrow)
    require_shape("W_dec", W_dec, tuple(W_enc.shape), "[d_sae, d_in], as W_enc")
    if W_dec_narrow is not None:
        require_shape("W_dec_narrow", W_dec_narrow, tuple(W_enc.shape), "[d_sae, d_in], as W_dec")
    require_one_device(x=x, W_dec=W_dec, W_dec_narrow=W_dec_narrow)
    dtypes = (plan.dtype, x.dtype, W_dec.dtype)
    chosen = choose_backend(backend, x, dtypes=dtypes, k=k, d_in=x.shape[1])
    require_cpu_above(chosen, plan.above)
    if chosen is not reference:
        require_countable_pairs(chosen, len(x), k)
    looked_at = not finds_faults(chosen, x)
    if looked_at:
        check_encode_content(x, W_enc, b_enc, b_dec, plan)
        require_finite("W_dec", W_dec)
    if chosen is reference:
        found = reference.encode_residual(x, W_enc, b_enc, W_dec, b_dec, k, **options)
    else:
        plan = plan.keeping(chosen.keeps(plan, _differentiated(x, W_enc, b_enc, W_dec, b_dec)))
        parts = EncodeResidualFunction.apply(
            x, W_enc, b_enc, W_dec, b_dec, W_enc_narrow, W_dec_narrow, plan, chosen
        )
        found = _encoded(parts[:5], plan.indices), Residual(*parts[5:])
    if looked_at:
        require_finite_activations(found[0].values)
        require_finite_sums("penalty", found[0].penalty)
        require_finite_sums("squared error", found[1].error)
    return found


class EncodeResidualFunction(torch.autograd.Function):
    """Encode and decode; both weight gradients come out of one pass over the pairs."""

    @staticmethod
    @outside_autocast
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor,
        W_enc_narrow: Tensor | None, W_dec_narrow: Tensor | None, plan: EncodePlan,
        backend: ModuleType,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Values, indices, penalty, mask, used places, residual and squared error of the batch."""
        encoder = Encoder(W_enc, b_enc, W_enc_narrow)
        decoder = Decoder(W_dec, b_dec, _decode_dtype(W_dec, plan), W_dec_narrow)
        with torch.cuda.device_of(x):
            centred = backend.centre(x, b_dec, plan.dtype)
            found: Encoding = backend.encode_forward(centred, encoder, plan)
            code = found.code, found.indices
            left: Left = backend.residual_forward(x, *code, decoder, used=found.used)
        others = (W_dec, W_dec_narrow, left.residual, left.narrow)
        _remember(ctx, centred, encoder, found, plan, PairOrder(), backend, *others)
        return *_selected(found, plan), left.residual, left.error

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(
        ctx: Any, d_values: Tensor | None, _i: None, d_penalty: Tensor | None, _a: None, _u: None,
        d_residual: Tensor | None, d_error: Tensor | None,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Gradients of x, W_enc, b_enc, W_dec and b_dec."""
        centred, encoder, found, order, others = _recall(ctx, d_penalty)
        W_dec, W_dec_narrow, residual, narrow = others
        decoder = Decoder(W_dec, None, _decode_dtype(W_dec, ctx.plan), W_dec_narrow)
        upstream = Upstream.of(residual, narrow, d_residual, d_error)
        gradients = encode_residual_gradients(
            ctx.backend, centred, encoder, decoder, found, ctx.plan, order, upstream, d_values,
            d_penalty, ctx.needs_input_grad[:5],
        )  # fmt: skip
        return *gradients, *[None] * 4


def _remember(
    ctx: Any, centred: Tensor, encoder: Encoder, found: Encoding, plan: EncodePlan,
    order: PairOrder, backend: ModuleType, *others: Tensor | None,
) -> None:  # fmt: skip
    """Keep what the gradient of an encoding needs."""
    ctx.plan, ctx.order, ctx.backend, ctx.kept = plan, order, backend, found.kept
    ctx.save_for_backward(centred, *encoder, *found._replace(kept=None), *others)
    constants = found.indices, found.active, found.used
    ctx.mark_non_differentiable(*(each for each in constants if each is not None))
    ctx.set_materialize_grads(False)


def _recall(
    ctx: Any, d_penalty: Tensor | None
) -> tuple[Tensor, Encoder, Encoding, Any, list[Tensor]]:
    """What was kept. The activations serve one gradient of the penalty, which uses them up."""
    centred, W_enc, b_enc, narrow, *rest = ctx.saved_tensors
    kept = None
    if d_penalty is not None:
        kept, ctx.kept = ctx.kept, None
    values, indices, penalty, active, norms, _, used, *others = rest
    found = Encoding(values, indices, penalty, active, norms, kept, used)
    order = partial(ctx.order.of, indices, len(W_enc), ctx.backend.latent_order, used)
    return centred, Encoder(W_enc, b_enc, narrow), found, order, others


def _selected(found: Encoding, plan: EncodePlan) -> tuple[Tensor | None, ...]:
    """Values, indices, penalty, mask and used places: the candidates as the caller sees them."""
    penalty = found.penalty
    if found.used is not None and plan.regularizer == "off_support_l1":
        off = found.values * unused_and_counted(found, plan)
        penalty = penalty + off.sum(dtype=penalty.dtype) / max(len(off), 1)
    return found.code, found.indices, penalty, found.active, found.used


def _encoded(found: tuple[Tensor, ...], given: Tensor | None) -> Encoded:
    """Give back the caller's own indices."""
    encoded = Encoded(*found)
    return encoded if given is None else encoded._replace(indices=given)


def _decode_dtype(W_dec: Tensor, plan: EncodePlan) -> torch.dtype:
    """As `decode_dtype` has it, where autocast is off again."""
    return plan.dtype if plan.dtype.itemsize < W_dec.dtype.itemsize else W_dec.dtype


def _differentiated(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
