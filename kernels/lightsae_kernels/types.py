"""Types of arguments and results of the operations."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FusedRegularizer: TypeAlias = Literal["off_support_l1", "l1_l2_ratio"]
Backend: TypeAlias = Literal["auto", "triton", "cpu", "reference"]
Group: TypeAlias = "ProcessGroup | None"
# From values and indices of candidates, [B, k], which of them are selected, [B, k] bool.
Narrow: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Residual(NamedTuple):
    """What a sparse code leaves unexplained.

    Attributes:
        residual: x - x_hat, at least float32, [B, d_in].
        error: Squared l2 norm of each row of it, [B].
    """

    residual: Tensor
    error: Tensor


class NestedResidual(NamedTuple):
    """What nested parts of a sparse code leave unexplained.

    Attributes:
        residual: x less the reconstruction by the whole code, at least float32, [B, d_in].
        errors: Squared l2 norm of what each part leaves of each row, [parts, B].
    """

    residual: Tensor
    errors: Tensor


class Encoded(NamedTuple):
    """The sparse code of a batch and the penalty on its pre-Top-k activations.

    Attributes:
        values: Activations of the selected latents, descending along a row, [B, k]; with `bank`
            descending within each bank, with `above` in the order of the latents.
        indices: Their latents, ties to the lowest index, [B, k] int64.
        penalty: Mean of the regularizer over the samples, a scalar; 0 without a regularizer.
        batch_active: Latents selected by at least one sample of the batch, [d_sae] bool.
        used: Which places `above` and `narrow` have selected, [B, k] bool; the values of others are
            0. None where all are.
    """

    values: Tensor
    indices: Tensor
    penalty: Tensor
    batch_active: Tensor
    used: Tensor | None = None


class EncodeOptions(TypedDict, total=False):
    """Keyword arguments of `encode_topk`, with its meanings and defaults."""

    regularizer: FusedRegularizer | None
    batch_active_only: bool
    eps: float
    indices: Tensor | None
    batch_active: Tensor | None
    process_group: Group
    bank: int | None
    above: Tensor | None
    narrow: Narrow | None


class Encoder(NamedTuple):
    """The parameters of an encoder that a product takes.

    Attributes:
        W: W_enc, [d_sae, d_in].
        b: b_enc, [d_sae].
        narrow: W_enc in the dtype of the product, where the caller has it.
    """

    W: Tensor
    b: Tensor
    narrow: Tensor | None = None

    def weight(self, dtype: torch.dtype) -> Tensor:
        """W_enc in a dtype: the narrow copy, if it is in that dtype, or one made now."""
        fits = self.narrow is not None and self.narrow.dtype == dtype
        return self.narrow if fits and self.narrow is not None else self.W.to(dtype)


class Decoder(NamedTuple):
    """The parameters of a decoder, and how they are multiplied.

    Attributes:
        W: W_dec, [d_sae, d_in].
        b: b_dec, [d_in], or None.
        dtype: Of the product: rows of W_dec are rounded to it.
        narrow: W_dec in the dtype of the product, where the caller has it.
    """

    W: Tensor
    b: Tensor | None
    dtype: torch.dtype
    narrow: Tensor | None = None

    def weight(self) -> Tensor:
        """W_dec, or its narrow copy, if that is in the dtype of the product."""
        fits = self.narrow is not None and self.narrow.dtype == self.dtype
        return self.narrow if fits and self.narrow is not None else self.W


class Left(NamedTuple):
    """What a backend finds of a residual.

    Attributes:
        residual: x - x_hat, at least float32, [B, d_in].
        error: Squared l2 norm of each row of it, [B].
        narrow: The residual in the dtype of the product, where it is narrower, or None.
    """

    residual: Tensor
    error: Tensor
    narrow: Tensor | None = None


class Encoding(NamedTuple):
    """What an encoding finds and leaves for its gradient.

    Attributes:
        values: Activations of the candidates, [B, k]; all are selected where `used` is None.
        indices: Their latents, [B, k] int64.
        penalty: Mean of the regularizer over the samples, a scalar; Reg 1 counts what is no
            candidate.
        active: The batch-active mask, [d_sae] bool.
        norms: l1 and l2 of each row over what the regularizer counts, [2, B]; of Reg 2 alone.
        kept: Activations of the whole batch, [B, d_sae], if the plan keeps them.
        used: Which candidates are selected, [B, k] bool.
    """

    values: Tensor
    indices: Tensor
    penalty: Tensor
    active: Tensor
    norms: Tensor | None
    kept: Tensor | None
    used: Tensor | None = None

    @property
    def code(self) -> Tensor:
        """Activations of what is selected, 0 at other candidates, [B, k]."""
        return self.values if self.used is None else self.values.masked_fill(~self.used, 0.0)


class DecoderPairs(NamedTuple):
    """What the gradient of W_dec is made of.

    Attributes:
        z: Activations, [B, k].
        g: Gradient of the reconstructions, [B, d_in].
    """

    z: Tensor
    g: Tensor


class EncodeGradients(NamedTuple):
    """Gradients of an encoding, and of the decoder where its pairs were given; None if not made.

    Attributes:
        x: Of the centred inputs, [B, d_in].
        W_enc: [d_sae, d_in].
        b_enc: [d_sae].
        W_dec: [d_sae, d_in].
    """

    x: Tensor | None
    W_enc: Tensor | None
    b_enc: Tensor
    W_dec: Tensor | None


class Quantized(NamedTuple):
    """Numbers in 8 bits; `lightsae_kernels.quantized_moments` defines them.

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
