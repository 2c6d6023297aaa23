"""Top-k: the k largest activations of every row (arXiv 2406.04093)."""

from lightsae_kernels import EncodeOptions

from lightsae.sae.selection.fused_selection import Batch, Found, FusedSelection, Operation


class TopK(FusedSelection):
    """Keep the k largest activations of every row, ties to the lowest index.

    Args:
        k: Latents kept per row.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1.

    Example:
        >>> import torch
        >>> encoder = torch.eye(3), torch.zeros(3), torch.zeros(3)
        >>> TopK(2).encode(torch.tensor([[1.0, 5.0, 3.0]]), encoder).indices
        tensor([[1, 2]])
    """

    def run(self, operation: Operation[Found], batch: Batch, options: EncodeOptions) -> Found:
        """See `FusedSelection.run`."""
        return operation(self.k, **options)
