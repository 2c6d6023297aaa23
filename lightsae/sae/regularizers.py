"""Penalties on the activations before Top-k (arXiv 2606.27321), and what all penalties share."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from lightsae_kernels import FusedRegularizer, reference
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.weight_warmup import WarmedUpWeight


class Regularizer(WarmedUpWeight, ABC):
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
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.

    Raises:
        LightsaeError: If weight is negative or not finite, or weight_warmup negative.

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

    def __init__(
        self, weight: float, batch_active_only: bool = True, weight_warmup: int = 0
    ) -> None:
        self._set_weight(weight, weight_warmup)
        self.batch_active_only = batch_active_only

    @abstractmethod
    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        """The unweighted penalty, a scalar.

        Args:
            a: Rectified pre-activations, [B, d_sae].
            indices: Selected latents, [B, k] int64.
            batch_active: Latents that count, [d_sae] bool; all of them without the mask.
        """


class CodeRegularizer(Regularizer):
    """A penalty on the code that selection leaves and on an embedding of each sample.

    Subclasses write `code_penalty`. Latents that no sample selects are not in the code, so there is
    no mask to choose.

    Args:
        weight: lambda, the factor of the penalty in the loss.
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.
    """

    def __init__(self, weight: float, weight_warmup: int = 0) -> None:
        self._set_weight(weight, weight_warmup)

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        """0: activations before selection cost nothing."""
        return a.new_zeros(())

    def chosen_embeddings(self, inputs: Tensor, from_data: Tensor | None) -> Tensor:
        """The embedding of each sample, [B, d_e]; by default its own input.

        Args:
            inputs: The activations as they come, [B, d_in].
            from_data: What the data gives beside them, [B, d_e], or None.
        """
        return inputs

    @abstractmethod
    def code_penalty(
        self,
        values: Tensor,
        indices: Tensor,
        d_sae: int,
        embeddings: Tensor,
        process_group: ProcessGroup | None = None,
    ) -> Tensor:
        """The unweighted penalty, a scalar.

        Args:
            values: Activations of the selected latents, [B, k]; a zero marks an unused place.
            indices: Their latents, [B, k] int64.
            d_sae: Size of the dictionary.
            embeddings: Embedding of each sample, [B, d_e], any norm.
            process_group: Ranks that share the batch.
        """


class OffSupportL1(Regularizer):
    """Reg 1: mean over samples of the l1 norm of what Top-k drops (arXiv 2606.27321).

    The paper sums over the batch where this takes the mean: lambda here = N * lambda there.

    Args:
        weight: lambda, the factor of the penalty in the loss.
        batch_active_only: Count only latents selected by at least one sample of the batch.
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.

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
        weight_warmup: Optimizer steps over which lambda rises linearly from 0.

    Raises:
        LightsaeError: If weight is negative or not finite, or eps is not positive.

    Example:
        >>> import torch
        >>> a = torch.tensor([[3.0, 4.0]])
        >>> L1L2Ratio(0.1).penalty(a, torch.tensor([[1]]), torch.tensor([True, True]))
        tensor(1.4000)
    """

    fused = "l1_l2_ratio"

    def __init__(
        self,
        weight: float,
        batch_active_only: bool = True,
        eps: float = 1e-8,
        weight_warmup: int = 0,
    ) -> None:
        super().__init__(weight, batch_active_only, weight_warmup)
        if not 0 < eps < math.inf:
            raise LightsaeError(f"eps must be positive and finite, got {eps}")
        self.eps = eps

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        """Mean l1 / l2 ratio, a scalar; see `Regularizer.penalty`."""
        return reference.l1_l2_ratio(a, batch_active, self.eps)
