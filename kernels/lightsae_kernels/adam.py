"""One step of Adam: the public operation; `reference` has the definition."""

import torch
from torch import Tensor

from lightsae_kernels import reference
from lightsae_kernels.argument_checks import check_adam_step
from lightsae_kernels.backends import choose_backend
from lightsae_kernels.types import AdamSettings, Backend, Moment, Quantized


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
