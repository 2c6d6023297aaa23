"""Checks of arguments; every error names the argument and what was expected."""

import math
from types import ModuleType

import torch
from torch import Tensor

from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.quantized_moments import BLOCK, scales_shape
from lightsae_kernels.types import AdamSettings, Moment, Quantized


class ArgumentError(ValueError):
    """An argument of an operation does not fit; the message names it and what was expected."""


def require_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...], legend: str) -> None:
    """Refuse a tensor of another shape; None stands for any size.

    The legend names sizes as {0}, {1}: put into it beforehand, they would be constants of a graph.
    """
    fits = tensor.dim() == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise ArgumentError(
            f"{name} must be {legend.format(*shape)}, got shape {tuple(tensor.shape)}"
        )


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and inf; a sum clears almost every tensor, element tests only follow suspicion."""
    total = tensor.detach().sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    if torch.isfinite(total) or bool(torch.isfinite(tensor).all()):
        return
    bad = int((~torch.isfinite(tensor)).sum())
    first = tuple((~torch.isfinite(tensor)).nonzero()[0].tolist())
    raise ArgumentError(f"{name} has {bad} NaN or infinite values, the first at {first}")


def require_finite_activations(values: Tensor) -> None:
    """Refuse an overflow of finite inputs: the largest activations of each row are not finite."""
    if not torch.isfinite(values).all():
        dtype = str(values.dtype).removeprefix("torch.")
        raise ArgumentError(f"pre-activations overflow {dtype}: scale x down or use a wider dtype")


def require_finite_sums(name: str, sums: Tensor) -> None:
    """Refuse an overflow of what finite tensors add up to."""
    if not torch.isfinite(sums).all():
        dtype = str(sums.dtype).removeprefix("torch.")
        raise ArgumentError(f"the {name} overflows {dtype}: scale x down")


def check_encode(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    b_dec: Tensor,
    plan: EncodePlan,
    W_enc_narrow: Tensor | None,
) -> None:
    """Shapes, dtypes and range of the arguments of encode_topk."""
    k, indices, batch_active = plan.k, plan.indices, plan.batch_active
    if plan.regularizer not in (None, "off_support_l1", "l1_l2_ratio"):
        raise ArgumentError(
            f"regularizer must be 'off_support_l1', 'l1_l2_ratio' or None, got {plan.regularizer!r}"
        )
    require_shape("W_enc", W_enc, (None, None), "[d_sae, d_in]")
    d_sae, d_in = W_enc.shape
    require_shape("x", x, (None, d_in), f"[B, d_in = {d_in}] (flatten tokens first)")
    require_shape("b_enc", b_enc, (d_sae,), f"[d_sae = {d_sae}]")
    require_shape("b_dec", b_dec, (d_in,), f"[d_in = {d_in}]")
    if type(k) is not int or not 1 <= k <= d_sae:
        raise ArgumentError(f"k must be an integer between 1 and d_sae = {d_sae}, got {k}")
    if plan.bank is not None:
        _check_bank(plan.bank, k, d_sae)
    if plan.above is not None:
        _check_above(plan, d_sae)
    if indices is not None:
        require_shape("indices", indices, (len(x), k), "[B = {0}, k = {1}]")
        require_int64(indices)
    if batch_active is not None:
        require_shape("batch_active", batch_active, (d_sae,), f"[d_sae = {d_sae}]")
        if batch_active.dtype != torch.bool:
            raise ArgumentError(f"batch_active must be bool, got {batch_active.dtype}")
    if W_enc_narrow is not None:
        require_shape("W_enc_narrow", W_enc_narrow, (d_sae, d_in), "[d_sae, d_in], as W_enc")
    require_one_dtype(x=x, W_enc=W_enc, b_enc=b_enc, b_dec=b_dec)
    tensors = {"x": x, "W_enc": W_enc, "b_enc": b_enc, "b_dec": b_dec}
    others = {"indices": indices, "batch_active": batch_active, "W_enc_narrow": W_enc_narrow,
              "above": plan.above}  # fmt: skip
    require_one_device(**tensors, **others)


def _check_above(plan: EncodePlan, d_sae: int) -> None:
    """A bound for all latents or for each, and no other way to select."""
    assert plan.above is not None
    if plan.bank is not None or plan.indices is not None:
        raise ArgumentError("above goes neither with bank nor with indices")
    if plan.above.shape not in ((), (d_sae,)):
        raise ArgumentError(
            f"above must be a scalar or [d_sae = {d_sae}], got shape {tuple(plan.above.shape)}"
        )


def require_cpu_above(backend: ModuleType, above: Tensor | None) -> None:
    """Refuse a bound where only the k largest of each row can be selected."""
    if above is not None and backend.__name__.endswith("fused"):
        raise ArgumentError("above is for CPU tensors: give k and narrow")


def _check_bank(bank: int, k: int, d_sae: int) -> None:
    """Banks of one size that cover the dictionary, with equally many latents of each."""
    if type(bank) is not int or bank < 1 or d_sae % bank:
        raise ArgumentError(f"bank must be an integer that divides d_sae = {d_sae}, got {bank!r}")
    if k % (d_sae // bank):
        raise ArgumentError(
            f"k must be a multiple of the {d_sae // bank} banks of {bank} latents, got {k}"
        )


def check_encode_content(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, plan: EncodePlan
) -> None:
    """Range of the indices and finiteness of the arguments of encode_topk; waits for the device."""
    if plan.indices is not None:
        require_in_dictionary(plan.indices, len(W_enc))
    if plan.above is not None and bool(plan.above.isnan().any()):
        raise ArgumentError(f"above has {int(plan.above.isnan().sum())} NaN")
    for name, tensor in (("x", x), ("W_enc", W_enc), ("b_enc", b_enc), ("b_dec", b_dec)):
        require_finite(name, tensor)


def require_countable_pairs(backend: ModuleType, rows: int, k: int) -> None:
    """Refuse more pairs (sample, latent) than the order that a backend sorts them in can number."""
    most = torch.iinfo(backend.ORDER_DTYPE).max
    if rows * k > most:
        raise ArgumentError(
            f"a batch of B = {rows} rows with k = {k} has {rows * k} pairs of sample and latent, "
            f"expected at most {most}: take smaller batches"
        )


def require_one_device(**tensors: Tensor | None) -> None:
    """Refuse tensors on several devices; None is no tensor."""
    (first, leader), *others = tensors.items()
    assert leader is not None
    for name, tensor in others:
        if tensor is not None and tensor.device != leader.device:
            raise ArgumentError(f"{first} is on {leader.device} but {name} is on {tensor.device}")


def require_one_dtype(**tensors: Tensor) -> None:
    """Refuse mixed dtypes outside autocast: nothing is converted behind the caller's back."""
    (first, reference), *others = tensors.items()
    if torch.is_autocast_enabled(reference.device.type):
        return
    for name, tensor in others:
        if tensor.dtype != reference.dtype:
            raise ArgumentError(f"{first} is {reference.dtype} but {name} is {tensor.dtype}")


def check_decode(
    values: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    b_dec: Tensor | None,
    W_dec_narrow: Tensor | None = None,
) -> None:
    """Shapes and dtypes of the arguments of sparse_decode."""
    require_shape("W_dec", W_dec, (None, None), "[d_sae, d_in]")
    require_shape("values", values, (None, None), "[B, k]")
    require_shape("indices", indices, tuple(values.shape), "[B, k] = [{0}, {1}]")
    if b_dec is not None:
        require_shape("b_dec", b_dec, (W_dec.shape[1],), f"[d_in = {W_dec.shape[1]}]")
        require_one_dtype(W_dec=W_dec, b_dec=b_dec)
    if W_dec_narrow is not None:
        require_shape("W_dec_narrow", W_dec_narrow, tuple(W_dec.shape), "[d_sae, d_in], as W_dec")
    require_int64(indices)
    require_one_device(
        values=values, indices=indices, W_dec=W_dec, b_dec=b_dec, W_dec_narrow=W_dec_narrow
    )


def check_decode_content(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None
) -> None:
    """Range of the indices and finiteness of the arguments of sparse_decode."""
    if b_dec is not None:
        require_finite("b_dec", b_dec)
    require_in_dictionary(indices, len(W_dec))
    require_finite("values", values)
    require_finite("W_dec", W_dec)


def check_adam_step(
    param: Tensor, grad: Tensor, exp_avg: Moment, exp_avg_sq: Moment, step: Tensor,
    settings: AdamSettings, copy: Tensor | None,
) -> None:  # fmt: skip
    """Shapes, dtypes and devices of the arguments of adam_step_, and the range of its settings."""
    check_adam_settings(settings)
    moments = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    if any(isinstance(moment, Quantized) for moment in moments.values()):
        _check_quantized(moments, param)
        moments = {}
    tensors = {"param": param, "grad": grad, **moments, **({} if copy is None else {"copy": copy})}
    for name, tensor in tensors.items():
        assert isinstance(tensor, Tensor)
        require_shape(name, tensor, tuple(param.shape), f"param's {list(param.shape)}")
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise ArgumentError(
                f"{name} must be dense and of floating point, got {tensor.dtype}, {tensor.layout}"
            )
        if tensor.device != param.device:
            raise ArgumentError(f"{name} is on {tensor.device} but param is on {param.device}")
    if step.dtype != torch.float32 or step.numel() != 1 or step.device != param.device:
        raise ArgumentError(
            f"step must be one float32 on {param.device}, "
            f"got {tuple(step.shape)} of {step.dtype} on {step.device}"
        )
    if (settings.project or settings.normalize) and param.dim() != 2:
        raise ArgumentError(
            f"project and normalize need rows, got param of shape {tuple(param.shape)}"
        )


def _check_quantized(moments: dict[str, Moment], param: Tensor) -> None:
    """Both in 8 bits, on rows: the second without a sign."""
    if param.dim() != 2:
        raise ArgumentError(f"8-bit moments need rows, got param of shape {tuple(param.shape)}")
    shape = tuple(param.shape)
    for (name, moment), dtype in zip(moments.items(), (torch.int8, torch.uint8), strict=True):
        if not isinstance(moment, Quantized):
            raise ArgumentError("exp_avg and exp_avg_sq must both be Quantized or neither")
        require_shape(f"codes of {name}", moment.codes, shape, f"param's {list(shape)}")
        scales = scales_shape(moment.codes)
        legend = f"{list(scales)}, a block of {BLOCK} each"
        require_shape(f"scales of {name}", moment.scales, scales, legend)
        if moment.codes.dtype != dtype or moment.scales.dtype != torch.float32:
            raise ArgumentError(
                f"{name} must be {dtype} codes with float32 scales, "
                f"got {moment.codes.dtype} and {moment.scales.dtype}"
            )
        for part in moment:
            if part.device != param.device:
                raise ArgumentError(f"{name} is on {part.device} but param is on {param.device}")


def check_adam_settings(settings: AdamSettings) -> None:
    """Range of learning rate, betas, eps and weight decay; a tensor's value is not looked at."""
    if isinstance(settings.lr, Tensor):
        if settings.lr.numel() != 1:
            raise ArgumentError(f"lr must be one number, got shape {tuple(settings.lr.shape)}")
    elif not 0 <= settings.lr < math.inf:
        raise ArgumentError(f"lr must be at least 0 and finite, got {settings.lr}")
    if len(settings.betas) != 2 or not all(0 <= beta < 1 for beta in settings.betas):
        raise ArgumentError(f"betas must be two numbers in [0, 1), got {settings.betas}")
    if not 0 < settings.eps < math.inf:
        # A latent that never fired would be 0 / 0.
        raise ArgumentError(f"eps must be above 0 and finite, got {settings.eps}")
    if not 0 <= settings.weight_decay < math.inf:
        raise ArgumentError(
            f"weight_decay must be at least 0 and finite, got {settings.weight_decay}"
        )


def require_int64(indices: Tensor) -> None:
    """Refuse indices of another dtype."""
    if indices.dtype != torch.int64:
        raise ArgumentError(f"indices must be int64, got {indices.dtype}")


def require_in_dictionary(indices: Tensor, d_sae: int) -> None:
    """Refuse indices outside the dictionary."""
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < d_sae:
        raise ArgumentError(f"indices must lie in [0, d_sae = {d_sae})")
