"""Selection rules beside Top-k, dense."""

from typing import Any

import torch
from lightsae_kernels import Encoded, reference
from torch import Tensor, nn

from lightsae.sae.selection import SELECTIONS


class _Dense(nn.Module):
    def __init__(self, k: int, **_: Any) -> None:
        super().__init__()
        self.k = k

    def settings(self) -> dict[str, Any]:
        """Arguments."""
        return {"k": self.k}

    def encode(self, x: Tensor, encoder: Any, *, k: Any = None, regularizer: Any = None,
               process_group: Any = None) -> Encoded:  # fmt: skip
        """Dense."""
        a = reference.activations(x, *encoder)
        a = a * self.kept(a)
        width = max(1, int((a > 0).sum(1).max()))
        values, indices = a.topk(width, dim=1)
        return Encoded(values, indices, a.new_zeros(()), (a > 0).any(0))


class BatchTopK(_Dense):
    """Inference only."""

    def __init__(self, k: int) -> None:
        super().__init__(k)
        self.register_buffer("threshold", torch.tensor(torch.nan))

    def kept(self, a: Tensor) -> Tensor:
        """Mask."""
        return a > self.threshold


class JumpReLU(_Dense):
    """Inference only."""

    def __init__(self, k: int, d_sae: int = 0) -> None:
        super().__init__(k)
        self.threshold = nn.Parameter(torch.zeros(d_sae))

    def kept(self, a: Tensor) -> Tensor:
        """Mask."""
        return a > self.threshold


class GroupMax(_Dense):
    """Inference only."""

    def kept(self, a: Tensor) -> Tensor:
        """Mask."""
        groups = a.unflatten(1, (self.k, -1))
        return (groups == groups.max(dim=2, keepdim=True).values).flatten(1)


SELECTIONS.update(BatchTopK=BatchTopK, JumpReLU=JumpReLU, GroupMax=GroupMax)  # type: ignore
