"""The public operations: arguments are checked, then a backend is chosen per tensor."""

from types import ModuleType
from typing import Unpack

import torch
from torch import Tensor

from lightsae_kernels import reference, tracing
from lightsae_kernels.backends import choose_backend, finds_faults
from lightsae_kernels.checks import (
    check_adam_step,
    check_decode,
    check_decode_content,
    check_encode,
    check_encode_content,
    check_regularizer,
    require_finite,
    require_finite_activations,
    require_finite_sums,
    require_one_device,
    require_shape,
)
from lightsae_kernels.dtypes import product_dtype
from lightsae_kernels.types import (
    AdamSettings,
    Backend,
    Encoded,
    EncodeOptions,
    FusedRegularizer,
    Group,
    Moment,
    Quantized,
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
        backend: "auto", "reference" (the definition), "cpu" (fast, CPU tensors) or "triton".

    Returns:
        `Encoded`: values [B, k], indices [B, k] int64, penalty scalar (mean over the B samples, so
        a weight means the same at any batch size), batch_active [d_sae] bool.

    Raises:
        ArgumentError: A ValueError. A shape or k does not fit, x or a parameter has NaN or inf
            (named), or the activations overflow the dtype. On a GPU the last two are raised by a
            later operation or by `raise_if_flagged`, without a name.
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
    check_regularizer(regularizer)
    check_encode(x, W_enc, b_enc, b_dec, k, indices, batch_active)
    chosen = choose_backend(backend, x, dtypes=(product_dtype(x),), k=k, d_in=x.shape[1])
    if torch.compiler.is_compiling():
        return tracing.encode_topk(
            chosen, x, W_enc, b_enc, b_dec, k, regularizer=regularizer, eps=eps, indices=indices,
            batch_active_only=batch_active_only, batch_active=batch_active,
            process_group=process_group,
        )  # fmt: skip
    looked_at = not finds_faults(chosen, x)
    if looked_at:
        check_encode_content(x, W_enc, b_enc, b_dec, indices)
    encoded: Encoded = chosen.encode_topk(
        x, W_enc, b_enc, b_dec, k, regularizer=regularizer, batch_active_only=batch_active_only,
        eps=eps, indices=indices, batch_active=batch_active, process_group=process_group,
    )  # fmt: skip
    if looked_at:
        require_finite_activations(encoded.values)
        require_finite_sums("penalty", encoded.penalty)
    return encoded


def sparse_decode(
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Reconstruct from a sparse code: the weighted sum of k decoder rows per sample.

    Args:
        values: Activations, [B, k].
        indices: Their latents, [B, k] int64; a latent may occur twice, its values add.
        W_dec: Decoder, a row per latent, [d_sae, d_in]; the result has its dtype.
        b_dec: Decoder bias, [d_in], or None.
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
    chosen = _decoder(values, indices, W_dec, b_dec, backend)
    if torch.compiler.is_compiling():
        return tracing.sparse_decode(chosen, values, indices, W_dec, b_dec)
    x_hat: Tensor = chosen.sparse_decode(values, indices, W_dec, b_dec)
    return x_hat


def sparse_residual(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Residual:
    """Decode, subtract from x and square, in one pass where the backend can.

    Args:
        x: What the code stands for, [B, d_in].
        values: Activations, [B, k].
        indices: Their latents, [B, k] int64; a latent may occur twice, its values add.
        W_dec: Decoder, a row per latent, [d_sae, d_in].
        b_dec: Decoder bias, [d_in], or None.
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
    chosen = _decoder(values, indices, W_dec, b_dec, backend, x.dtype)
    if torch.compiler.is_compiling():
        return tracing.sparse_residual(chosen, x, values, indices, W_dec, b_dec)
    looked_at = not finds_faults(chosen, W_dec)
    if looked_at:
        require_finite("x", x)
    found: Residual = chosen.sparse_residual(x, values, indices, W_dec, b_dec)
    if looked_at:
        require_finite_sums("squared error", found.error)
    return found


def encode_residual(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    k: int,
    *,
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
    check_regularizer(options.get("regularizer"))
    check_encode(x, W_enc, b_enc, b_dec, k, options.get("indices"), options.get("batch_active"))
    require_shape("W_dec", W_dec, tuple(W_enc.shape), "[d_sae, d_in], as W_enc")
    require_one_device(x=x, W_dec=W_dec)
    dtypes = (product_dtype(x), x.dtype, W_dec.dtype)
    chosen = choose_backend(backend, x, dtypes=dtypes, k=k, d_in=x.shape[1])
    looked_at = not finds_faults(chosen, x)
    if looked_at:
        check_encode_content(x, W_enc, b_enc, b_dec, options.get("indices"))
        require_finite("W_dec", W_dec)
    found: tuple[Encoded, Residual] = chosen.encode_residual(
        x, W_enc, b_enc, W_dec, b_dec, k, **options
    )
    if looked_at:
        require_finite_activations(found[0].values)
        require_finite_sums("penalty", found[0].penalty)
        require_finite_sums("squared error", found[1].error)
    return found


@torch.compiler.disable
@torch.no_grad()
def adam_step_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    step: Tensor,
    settings: AdamSettings,
    copy: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> None:
    """Step one parameter and its moments in place: Adam or AdamW as in torch.optim (1412.6980).

    With `settings.project` the gradient first loses its part along each row of the parameter, with
    `settings.normalize` rows end in unit norm. Rows whose gradient and moments are all 0 stay as
    they are, bit for bit, without weight decay. The gradient is only read. Arithmetic is at least
    float32.

    Args:
        param: What is stepped; [N, D] where rows are projected or normalized, else any shape.
        grad: Its gradient.
        exp_avg: First moment; like all others of param's shape and device, of any floating dtype,
            or `Quantized` int8 codes of it.
        exp_avg_sq: Second moment; `Quantized` uint8 codes if the first is quantized.
        step: Number of this step from 1 on, one float32 on the device of param; only read, so that
            a captured graph goes on counting.
        settings: See `AdamSettings`.
        copy: Receives the new parameter in another dtype, or None.
        backend: "auto", "reference" (the definition), "cpu" (fast, CPU tensors) or "triton".

    Raises:
        ArgumentError: A ValueError; a shape, dtype, device or setting does not fit.
        RuntimeError: If backend="triton" meets a CPU tensor outside the interpreter.

    Example:
        >>> import torch
        >>> w, moments = torch.tensor([[3.0, 4.0]]), (torch.zeros(1, 2), torch.zeros(1, 2))
        >>> how = AdamSettings(lr=0.5, project=True, normalize=True)
        >>> adam_step_(w, torch.tensor([[3.0, 4.0]]), *moments, torch.ones(()), how)
        >>> w  # the gradient lay along the row: nothing moves
        tensor([[3., 4.]])
    """
    check_adam_step(param, grad, exp_avg, exp_avg_sq, step, settings, copy)
    if param.numel() == 0:
        return
    moments = [t for m in (exp_avg, exp_avg_sq) for t in (m if isinstance(m, Quantized) else (m,))]
    rows = settings.project or settings.normalize or isinstance(exp_avg, Quantized)
    width = param.shape[-1] if rows else 1
    chosen = choose_backend(backend, param, dtypes=(param.dtype,), k=1, d_in=width)
    written = (param, *moments, *([] if copy is None else [copy]))
    if not all(tensor.is_contiguous() for tensor in written):
        chosen = reference
    chosen.adam_step_(param, grad, exp_avg, exp_avg_sq, step, settings, copy)


def _decoder(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None, backend: Backend,
    *dtypes: torch.dtype,
) -> ModuleType:  # fmt: skip
    """Check the arguments of a decode and choose who does it."""
    check_decode(values, indices, W_dec, b_dec)
    dtypes = (values.dtype, W_dec.dtype, *dtypes)
    sizes = {"k": values.shape[1], "d_in": W_dec.shape[1]}
    chosen = choose_backend(backend, W_dec, dtypes=dtypes, **sizes)
    if not torch.compiler.is_compiling() and not finds_faults(chosen, W_dec):
        check_decode_content(values, indices, W_dec, b_dec)
    return chosen
