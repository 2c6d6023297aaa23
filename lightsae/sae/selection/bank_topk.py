"""Top-k within banks of consecutive latents: a code of static shape (arXiv 2606.10722)."""

from typing import Any

from lightsae_kernels import EncodeOptions

from lightsae.errors import LightsaeError
from lightsae.sae.selection.fused_selection import (
    Batch,
    Found,
    FusedSelection,
    Operation,
    positive,
)


class BankTopK(FusedSelection):
    """Keep exactly `keep` of every `bank` consecutive latents, ties to the lowest index.

    k is keep d_sae / bank, known once the autoencoder is built. Each bank's values are descending;
    `SparseAutoencoder.encode` sorts the whole row.

    Args:
        keep: Latents kept of each bank.
        bank: Latents of a bank; it divides d_sae.

    Raises:
        LightsaeError: If one is not an integer or smaller than 1, or keep larger than bank.

    Example:
        >>> import torch
        >>> encoder = torch.eye(4), torch.zeros(4), torch.zeros(4)
        >>> BankTopK(keep=1, bank=2).encode(torch.tensor([[1.0, 5.0, 3.0, 2.0]]), encoder).indices
        tensor([[1, 2]])
    """

    def __init__(self, keep: int, bank: int) -> None:
        self.keep, self.bank = positive("keep", keep), positive("bank", bank)
        super().__init__(keep)
        if keep > bank:
            raise LightsaeError(f"keep = {keep} is larger than bank = {bank}")

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again."""
        return {"keep": self.keep, "bank": self.bank}

    def build(self, d_sae: int) -> None:
        """Take k from the size of the dictionary.

        Raises:
            LightsaeError: If bank does not divide d_sae.
        """
        if d_sae % self.bank:
            raise LightsaeError(f"bank = {self.bank} does not divide d_sae = {d_sae}")
        self.k = self.keep * (d_sae // self.bank)

    def run(self, operation: Operation[Found], batch: Batch, options: EncodeOptions) -> Found:
        """See `FusedSelection.run`."""
        self.build(batch.d_sae)
        return operation(self.k, bank=self.bank, **options)


class GroupMax(FusedSelection):
    """Keep the largest activation of each of k equal groups of consecutive latents.

    Args:
        k: Groups, and latents kept per row; it divides d_sae.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1.

    Example:
        >>> import torch
        >>> encoder = torch.eye(4), torch.zeros(4), torch.zeros(4)
        >>> GroupMax(2).encode(torch.tensor([[1.0, 5.0, 3.0, 2.0]]), encoder).indices
        tensor([[1, 2]])
    """

    def build(self, d_sae: int) -> None:
        """Compare k with the size of the dictionary.

        Raises:
            LightsaeError: If k does not divide d_sae.
        """
        if d_sae % self.k:
            raise LightsaeError(f"k = {self.k} groups do not divide d_sae = {d_sae}")

    def run(self, operation: Operation[Found], batch: Batch, options: EncodeOptions) -> Found:
        """See `FusedSelection.run`."""
        self.build(batch.d_sae)
        return operation(self.k, bank=batch.d_sae // self.k, **options)
