"""`SparseCode`: values and indices of the selected latents of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae.index_checks import latent_indices


@dataclass(frozen=True, eq=False)
class SparseCode:
    """The latents that fire on each row of a batch, and how strongly.

    Attributes:
        values: Activations, descending along a row, [B, k]; a zero marks an unused place.
        indices: Their latents, [B, k] int64.
        d_sae: Size of the dictionary.
        statistics: Shift and factor of each row, [B, 2], where inputs are normalised by row;
            `SparseAutoencoder.decode` needs them then.

    Example:
        >>> import torch
        >>> code = SparseCode(torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 0]]), d_sae=4)
        >>> code.to_dense()
        tensor([[0., 0., 0., 2.]])
        >>> code.l0()
        tensor([1])
    """

    values: Tensor
    indices: Tensor
    d_sae: int
    statistics: Tensor | None = None

    def __len__(self) -> int:
        """Rows of the batch."""
        return len(self.values)

    def to_dense(self) -> Tensor:
        """The code as [B, d_sae], zeros included.

        Raises:
            LightsaeError: If values and indices do not fit together, or a latent is not in the
                dictionary; a compiled graph does not look.
        """
        indices = self.indices
        if not torch.compiler.is_compiling():
            indices = latent_indices(self.values, indices, self.d_sae)
        dense = self.values.new_zeros(len(self), self.d_sae)
        return dense.scatter_add(1, indices, self.values)

    def l0(self) -> Tensor:
        """Latents that fire on each row, [B] int64."""
        return (self.values > 0).sum(dim=1)

    def to(self, device: torch.device | str) -> "SparseCode":
        """The same code on a device; Lightning moves predictions with it.

        Raises:
            LightsaeError: If a dtype is given: indices would lose digits as floats.
        """
        if isinstance(device, torch.dtype):
            raise LightsaeError(f"a code is moved to a device, got {device}")
        return self._mapped(lambda tensor: tensor.to(device))

    def detach(self) -> "SparseCode":
        """The same code outside the graph."""
        return self._mapped(Tensor.detach)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "SparseCode":
        """The code with every tensor changed."""
        statistics = None if self.statistics is None else change(self.statistics)
        return SparseCode(change(self.values), change(self.indices), self.d_sae, statistics)


# Exported programs take and return codes.
torch.export.register_dataclass(SparseCode, serialized_type_name="lightsae.sae.SparseCode")
