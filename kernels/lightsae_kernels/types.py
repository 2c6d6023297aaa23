"""What the operations take and return."""

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FusedRegularizer: TypeAlias = Literal["off_support_l1", "l1_l2_ratio"]
Backend: TypeAlias = Literal["auto", "triton", "cpu", "reference"]
Group: TypeAlias = "ProcessGroup | None"


class Residual(NamedTuple):
    """What a sparse code leaves unexplained.

    Attributes:
        residual: x - x_hat, at least float32, [B, d_in].
        error: Squared l2 norm of each row of it, [B].
    """

    residual: Tensor
    error: Tensor


class Encoded(NamedTuple):
    """The sparse code of a batch and the penalty on its pre-Top-k activations.

    Attributes:
        values: Activations of the selected latents, descending along a row, [B, k].
        indices: Their latents, ties to the lowest index, [B, k] int64.
        penalty: Mean of the regularizer over the samples, a scalar; 0 without a regularizer.
        batch_active: Latents selected by at least one sample of the batch, [d_sae] bool.
    """

    values: Tensor
    indices: Tensor
    penalty: Tensor
    batch_active: Tensor


class EncodeOptions(TypedDict, total=False):
    """Keyword arguments of `encode_topk`, with its meanings and defaults."""

    regularizer: FusedRegularizer | None
    batch_active_only: bool
    eps: float
    indices: Tensor | None
    batch_active: Tensor | None
    process_group: Group


class Task(NamedTuple):
    """What a custom operator asks of one encoding, beside its tensors.

    Attributes:
        k: As in `lightsae_kernels.encode_topk`; so are all up to `process_group`.
        dtype: Dtype of the product.
        keep: Keep the activations of the whole batch for the backward pass.
    """

    k: int
    regularizer: FusedRegularizer | None
    batch_active_only: bool
    eps: float
    indices: Tensor | None
    batch_active: Tensor | None
    process_group: Group
    dtype: torch.dtype
    keep: bool


class Support(NamedTuple):
    """What an encoding leaves for its gradient.

    Attributes:
        values: [B, k].
        indices: [B, k] int64.
        active: The mask, [d_sae] bool.
        norms: l1 and l2 of each row where the backend has them, [2, B] float32.
        kept: Activations of the whole batch where the backend keeps them, [B, d_sae].
    """

    values: Tensor
    indices: Tensor
    active: Tensor
    norms: Tensor | None
    kept: Tensor | None


class Quantized(NamedTuple):
    """Numbers in 8 bits; `lightsae_kernels.quantized` defines them.

    Attributes:
        codes: int8, or uint8 for what has no sign, [..., D].
        scales: Largest absolute value of each block of a row, float32, [..., ceil(D / 256)].
    """

    codes: Tensor
    scales: Tensor


Moment: TypeAlias = Tensor | Quantized


class AdamSettings(NamedTuple):
    """How one parameter is stepped.

    Attributes:
        lr: Learning rate, or a tensor of one element with it.
        betas: Decay of the first and of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Factor of the weight decay.
        decoupled_weight_decay: Shrink the parameter (AdamW) instead of adding to the gradient.
        project: First remove from each row of the gradient its part along the parameter's row.
        normalize: Last bring each row that has moved to unit norm.
    """

    lr: "float | Tensor" = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False
    project: bool = False
    normalize: bool = False
