"""What the operations take and return."""

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

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
