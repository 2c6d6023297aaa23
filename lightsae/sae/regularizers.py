"""Penalties on the activations before Top-k (arXiv 2606.27321)."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from lightsae_kernels import FusedRegularizer, reference
from torch import Tensor

from lightsae.errors import LightsaeError


class Regularizer(ABC):
    """A penalty on a [B, d_sae]; subclass it to write your own.

    Only `penalty` is needed. It runs on the dense activations through autograd; a subclass that
    names a fused operation in `fused` runs there instead and gives the same numbers. A subclass
    with a `penalty` of its own does not inherit `fused`.

    Attributes:
        fused: Name of the fused operation in `lightsae_kernels.encode_topk`, or None.

    Args:
        weight: lambda, the factor of the penalty in the loss; the penalty is a mean over samples.
        batch_active_only: Count only latents selected by at least one sample of the batch
            (a micro-batch under gradient accumulation, all ranks under data parallelism).

    Raises:
        LightsaeError: If weight is negative or not finite.

    Example:
        >>> import torch
        >>> class SquaredOffSupport(Regularizer):
        ...     def penalty(self, a, indices, batch_active):
        ...         dropped = a.scatter(1, indices, 0.0) * batch_active
        ...         return dropped.square().sum(dim=1).mean()
        >>> a, selected = torch.tensor([[3.0, 2.0]]), torch.tensor([[0]])
        >>> SquaredOffSupport(0.1).penalty(a, selected, torch.tensor([True, True]))
        tensor(4.)
    """

    fused: ClassVar[FusedRegularizer | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "penalty" in vars(cls) and "fused" not in vars(cls):
            cls.fused = None

    def __init__(self, weight: float, batch_active_only: bool = True) -> None:
        if not 0 <= weight < math.inf:
            raise LightsaeError(f"weight must be at least 0 and finite, got {weight}")
        self.weight = weight
        self.batch_active_only = batch_active_only

    @abstractmethod
    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        """The unweighted penalty, a scalar.

        Args:
            a: Rectified pre-activations, [B, d_sae].
            indices: Selected latents, [B, k] int64.
            batch_active: Latents that count, [d_sae] bool; all of them without the mask.
        """


class OffSupportL1(Regularizer):
    """Reg 1: mean over samples of the l1 norm of what Top-k drops (arXiv 2606.27321).

    The paper sums over the batch where this takes the mean: lambda here = N * lambda there.

    Args:
        weight: lambda, the factor of the penalty in the loss.
        batch_active_only: Count only latents selected by at least one sample of the batch.

    Example:
        >>> import torch
        >>> a, selected = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0]])
        >>> OffSupportL1(0.1).penalty(a, selected, torch.tensor([True, True, False]))
        tensor(2.)
    """

    fused = "off_support_l1"

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        """Mean l1 norm off the support, a scalar; see `Regularizer.penalty`."""
        return reference.off_support_l1(a, indices, batch_active)


class L1L2Ratio(Regularizer):
    """Reg 2: mean over samples of l1 / (l2 + eps) of the activations (arXiv 2606.27321).

    The paper sums over the batch where this takes the mean: lambda here = N * lambda there.
    A row without a positive activation counts 0.

    Args:
        weight: lambda, the factor of the penalty in the loss.
        batch_active_only: Count only latents selected by at least one sample of the batch.
        eps: Added to the l2 norm, positive.

    Raises:
        LightsaeError: If weight is negative or not finite, or eps is not positive.

    Example:
        >>> import torch
        >>> a = torch.tensor([[3.0, 4.0]])
        >>> L1L2Ratio(0.1).penalty(a, torch.tensor([[1]]), torch.tensor([True, True]))
        tensor(1.4000)
    """

    fused = "l1_l2_ratio"

    def __init__(self, weight: float, batch_active_only: bool = True, eps: float = 1e-8) -> None:
        super().__init__(weight, batch_active_only)
        if not 0 < eps < math.inf:
            raise LightsaeError(f"eps must be positive and finite, got {eps}")
        self.eps = eps

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        """Mean l1 / l2 ratio, a scalar; see `Regularizer.penalty`."""
        return reference.l1_l2_ratio(a, batch_active, self.eps)


# Penalties that checkpoints can name.
REGULARIZERS: dict[str, type[Regularizer]] = {
    "OffSupportL1": OffSupportL1,
    "L1L2Ratio": L1L2Ratio,
}
